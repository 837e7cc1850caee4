"""Size and cost of a model, without its weights and without computing anything that needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ovrs.engine.setup import build_model
from ovrs.errors import ConfigError
from ovrs.heads.blocks.work import NORMS
from ovrs.measure.original_work import TEXT_END, TEXT_NORMS, original_extra
from ovrs.measure.stages import REST, STAGES, TEXT, around_stages, example_records, use_stand_ins
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.structures import TextFeatures, TokenSequences
from ovrs.vocabulary import Vocabulary

GIGA = 1e9


class ParameterCount(NamedTuple):
    """Parameters of one part of a model."""

    total: int
    trained: int


@dataclass(frozen=True)
class Analysis:
    """What :func:`analyze` finds out.

    Attributes:
        parameters: by part; the towers and the head add up to ``model``, the parts of the head to the head.
        macs: multiply-accumulates of one image by stage (``stages.STAGES``), of convolutions and matrix
            products; those of ``text`` are due once per vocabulary.
        original_extra: multiply-accumulates that the original implementation does on top, by reason; and what
            fvcore counts for normalisation layers.
        classes: number of classes, ``T``.
        passes: how many passes of the towers one image takes.
    """

    parameters: dict[str, ParameterCount]
    macs: dict[str, int]
    original_extra: dict[str, int]
    classes: int
    passes: int

    @property
    def image_macs(self) -> int:
        """Multiply-accumulates of one image, text cached."""
        return sum(self.macs.values()) - self.macs[TEXT]

    def original_macs(self, *, text: bool = False, norms: bool = False) -> int:
        """Multiply-accumulates of one image in the original implementation.

        Args:
            text: whether text is encoded too; otherwise it is cached.
            norms: whether normalisation layers are counted too, as fvcore does.
        """
        left_out = {NORMS: not norms, TEXT_END: not text, TEXT_NORMS: not (text and norms)}
        extra = sum(n for what, n in self.original_extra.items() if not left_out.get(what))
        return self.image_macs + extra + (self.macs[TEXT] if text else 0)

    def table(self) -> str:
        """Return everything as text."""
        counts = [
            (name, f"{count.total:,}", f"{count.trained:,}")
            for name, count in self.parameters.items()
            if count.total or name == "head"
        ]
        giga = [(stage, f"{n / GIGA:,.2f}") for stage, n in self.macs.items() if n]
        with_text = self.image_macs + self.macs[TEXT]
        giga += [("sum, text cached", f"{self.image_macs / GIGA:,.2f}"), ("sum with text", f"{with_text / GIGA:,.2f}")]
        giga += [
            (f"the original also computes: {what}", f"{n / GIGA:,.2f}")
            for what, n in self.original_extra.items()
            if n and what not in (NORMS, TEXT_NORMS)
        ]
        giga += [
            (f"comparable with the papers, {what}", f"{n / GIGA:,.2f}")
            for what, n in (
                ("text cached", self.original_macs()),
                ("with text", self.original_macs(text=True)),
                ("with text, as fvcore counts", self.original_macs(text=True, norms=True)),
            )
        ]
        heading = f"One image, {self.classes} classes, passes of the towers: {self.passes}"
        return "\n\n".join(
            [
                tabulate(counts, ["parameters", "total", "trained"], colalign=("left", "right", "right")),
                tabulate(giga, [heading, "giga-MACs"], colalign=("left", "right"), disable_numparse=True),
                "MACs are multiply-accumulates of convolutions and matrix products; true FLOPs are twice these.\n"
                "Papers in this field print MACs under the name of FLOPs; fvcore adds normalisation layers to them.",
            ]
        )

    def as_dict(self) -> dict:
        """Return everything as plain values, for JSON."""
        return {
            "parameters": {name: count._asdict() for name, count in self.parameters.items()},
            "classes": self.classes,
            "passes": self.passes,
            "macs": dict(self.macs),
            "original_extra_macs": dict(self.original_extra),
            "image_macs_text_cached": self.image_macs,
            "original_image_macs_text_cached": self.original_macs(),
            "original_image_macs_with_text": self.original_macs(text=True),
            "original_image_macs_with_text_as_fvcore": self.original_macs(text=True, norms=True),
        }


def analyze(cfg: CfgNode, classes: int, size: tuple[int, int] = (640, 640)) -> Analysis:
    """Count the parameters of a configuration's model, and its work for one image under its inference protocol.

    No weights are fetched. The text tower runs on the CPU; everything else runs on tensors without
    content, so a full-size model takes seconds. What depends on content is counted in full: SAM 3 draws every word
    with all candidates.

    Args:
        cfg: the configuration.
        classes: number of classes, ``T``, at least 2.
        size: (height, width) of the image; it matters where the protocol does not squash images to one size.

    Raises:
        ConfigError: see :func:`ovrs.engine.build_model`; or an ensemble.
    """
    if cfg.MODEL.META_ARCHITECTURE == "Ensemble":
        raise ConfigError("an ensemble costs what its members cost: analyse MODEL.ENSEMBLE.CONFIGS one by one.")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PRECISION.TOWERS = cfg.MODEL.PRECISION.HEAD = "fp32"  # changes no count; autocast knows no such tensors
    cfg.TEST.THRESHOLD = 0.0  # neither does it, and labels would be read
    use_stand_ins(cfg)
    cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK = classes  # tensors without content need no memory
    model = build_model(cfg, load_towers=False).eval()
    parameters = count_parameters(model)

    (record,) = example_records(cfg, 1, size, classes)
    macs: Counter[str] = Counter()
    passes = 0

    @contextmanager
    def counting(stage: str) -> Iterator[None]:
        before = counter.get_total_flops()
        yield
        macs[stage] += (counter.get_total_flops() - before) // 2

    def count_passes(module: nn.Module, args: tuple, logits: Tensor) -> None:
        nonlocal passes
        passes += len(logits)

    model.requires_grad_(False)  # the counter would follow gradients
    hook = model.head.register_forward_hook(count_passes)
    with (
        torch.no_grad(),  # not inference mode, whose tensors have no version, by which caches of parameters go
        sdpa_kernel(SDPBackend.MATH),  # attention as matrix products, which are counted on every device
        FlopCounterMode(display=False) as counter,
        around_stages(model, counting),
        original_extra(model, model.head, model.vlm) as extra,
    ):
        _without_content(model, record["vocabulary"])
        model([{**record, "image": record["image"].to("meta")}])
    hook.remove()
    macs[REST] = counter.get_total_flops() // 2 - sum(macs.values())
    return Analysis(parameters, {stage: macs[stage] for stage in STAGES}, dict(extra), classes, passes)


def count_parameters(model: OpenVocabSegmenter) -> dict[str, ParameterCount]:
    """Count the parameters of the towers, the head, the head's parts, and the whole."""
    image, text = model.vlm.image_parameters(), model.vlm.text_parameters()
    known = {id(parameter) for parameter in (*image, *text)}
    parts = {
        "VLM, image tower": image,
        "VLM, text tower": text,
        "VLM, behind both": [parameter for parameter in model.vlm.parameters() if id(parameter) not in known],
        **{name: list(tower.parameters()) for name, tower in model.towers.items() if name != "vlm"},
        "head": list(model.head.parameters()),
    }
    for name, part in model.head.named_children():
        if members := list(part.parameters()):
            parts[f"head: {name}"] = members
    parts["model"] = list(model.parameters())
    return {
        name: ParameterCount(sum(p.numel() for p in members), sum(p.numel() for p in members if p.requires_grad))
        for name, members in parts.items()
    }


def _without_content(model: OpenVocabSegmenter, classes: list[str]) -> None:
    """Encode the text, which reads token ids, and move everything else to tensors that have a shape only."""
    vocabulary: Vocabulary = model.vocabulary(classes)
    text = model.text_bank(model.vlm, vocabulary)
    model.to("meta")
    tokens = text.tokens and TokenSequences(text.tokens.values.to("meta"), text.tokens.valid.to("meta"))
    on_meta = TextFeatures(text.embeddings.to("meta"), text.class_of, text.classes, tokens)
    model.text_bank = lambda *_: on_meta
