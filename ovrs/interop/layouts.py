"""Name maps between this project's state dicts and those of the original projects.

A layout is a list of pairs ``official, ours``; ``*`` stands for any text and is carried over. The
map is one to one (buffers that follow from the geometry are dropped), so weights can be exported too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ovrs.backbones.attention import fuse_split_attention, split_fused_attention
from ovrs.backbones.state_dict import WeightsError


@dataclass(frozen=True)
class Layout:
    """How one original project names its tensors.

    Attributes:
        name: of the model.
        marker: a tensor name that this layout has and no other.
        rules: (official, ours) name patterns, tried in order; one ``*`` each at most.
        dropped: patterns of official tensors that are recomputed, not stored.
        lifted: names (ours, last component) of vectors that the original stores as [1, 1, C].
        unread: scalars of ours that the original does not have and nothing reads, with their values.
        fused_attention: whether the original keeps query, key and value weights in one tensor.
    """

    name: str
    marker: str
    rules: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()
    unread: Mapping[str, float] = field(default_factory=dict)
    fused_attention: bool = False

    def to_ours(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename official tensors into this project's names.

        Raises:
            WeightsError: tensors that no rule knows.
        """
        state = split_fused_attention({n: t for n, t in state.items() if not _matches_any(n, self.dropped)})
        renamed = {_rename(name, self.rules): tensor for name, tensor in state.items()}
        if None in renamed:
            unknown = [name for name in state if _rename(name, self.rules) is None]
            raise WeightsError(f"the {self.name} layout does not know {len(unknown)} tensors, such as {unknown[:5]}.")
        ours = {n: t.flatten() if n.endswith(self.lifted) else t for n, t in renamed.items()}
        return ours | {name: torch.tensor(value) for name, value in self.unread.items()}

    def to_official(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename this project's tensors into official names (dropped buffers are left out).

        Raises:
            WeightsError: tensors that the official model does not have.
        """
        state = {name: tensor for name, tensor in state.items() if name not in self.unread}
        if self.fused_attention:
            state = fuse_split_attention(state)
        backwards = [(ours, official) for official, ours in self.rules]
        result = {}
        for name, tensor in state.items():
            official = _rename(name, backwards)
            if official is None:
                raise WeightsError(f"{name} has no counterpart in the {self.name} layout.")
            lifted = name.endswith(self.lifted)
            result[official] = tensor[None, None] if lifted else tensor
        return result


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile("(.+)".join(re.escape(part) for part in template.split("*")) + r"\Z")


def _rename(name: str, rules: Sequence[tuple[str, str]]) -> str | None:
    for source, target in rules:
        match = _pattern(source).match(name)
        if match:
            return target.replace("*", match.group(1)) if match.groups() else target
    return None


def _matches_any(name: str, templates: Sequence[str]) -> bool:
    return any(_pattern(template).match(name) for template in templates)


def _aggregator_rules(official: str, ours: str, layers: int) -> list[tuple[str, str]]:
    """CAT-Seg's aggregator layers, which its descendants keep."""
    rules = []
    for i in range(layers):
        source, target = f"{official}.layers.{i}", f"{ours}.layers.{i}"
        for block in ("block_1", "block_2"):
            rules += [
                (f"{source}.swin_block.{block}.mlp.fc1.*", f"{target}.spatial.{block}.mlp.0.*"),
                (f"{source}.swin_block.{block}.mlp.fc2.*", f"{target}.spatial.{block}.mlp.2.*"),
            ]
        rules += [
            (f"{source}.swin_block.*", f"{target}.spatial.*"),
            *((f"{source}.attention.attention.{part}.*", f"{target}.classes.{part}.*") for part in "qkv"),
            (f"{source}.attention.MLP.*", f"{target}.classes.mlp.*"),
            (f"{source}.attention.*", f"{target}.classes.*"),
        ]
    return rules


def _decoder_rules(official: str, ours: str) -> list[tuple[str, str]]:
    names = {"up": "up", "conv.double_conv.0": "conv1", "conv.double_conv.1": "norm1"}
    names |= {"conv.double_conv.3": "conv2", "conv.double_conv.4": "norm2"}
    return [(f"{official}.{theirs}.*", f"{ours}.{own}.*") for theirs, own in names.items()]


def _gsnet() -> Layout:
    predictor = "sem_seg_head.predictor"
    head = f"{predictor}.transformer"
    rules = [
        ("dino_model.*", "prior.vit.*"),
        (f"{predictor}.clip_model.*", "vlm.clip.*"),
        (f"{head}.conv1.*", "head.fusion.embed_vlm.*"),
        (f"{head}.conv2.*", "head.fusion.embed_prior.*"),
        (f"{head}.fusion_corr.*", "head.fusion.fuse.*"),
        (f"{head}.guidance_projection.0.*", "head.appearance.*"),
        (f"{head}.text_guidance_projection.0.*", "head.text_guidance.*"),
        (f"{head}.head.*", "head.predictor.*"),
        ("dino_down_sample.*", "head.align.*"),
        *_aggregator_rules(head, "head", layers=2),
    ]
    for level, (vlm_tap, prior_tap) in enumerate(
        (("upsample1", "dino_decod_proj1"), ("upsample2", "dino_decod_proj2"))
    ):
        rules += [
            (f"{vlm_tap}.*", f"head.vlm_taps.{level}.resample.*"),
            (f"{prior_tap}.*", f"head.prior_taps.{level}.resample.*"),
            (f"{head}.CLIP_decoder_guidance_projection.{level}.0.*", f"head.vlm_taps.{level}.project.*"),
            (f"{head}.DINO_decoder_guidance_projection.{level}.0.*", f"head.prior_taps.{level}.project.*"),
            *_decoder_rules(f"{head}.Fusiondecoder{level + 1}", f"head.decoder.{level}"),
        ]
    return Layout(
        name="GSNet",
        marker=f"{head}.fusion_corr.weight",
        rules=tuple(rules),
        dropped=("*.attn_mask",),
        lifted=("padding_tokens", "padding_guidance"),
    )


def _hg_rsovsseg() -> Layout:
    """The layout of mmengine checkpoints, for any number of decoder levels."""
    rules = [
        ("image_encoder.visual.*", "vlm.clip.visual.*"),
        ("text_encoder.*", "vlm.clip.*"),
        ("neck.upsample.*", "head.guidance.*"),
        ("decode_head.conv_seg.*", "head.predictor.*"),
    ]
    attention = {"vis_project": "visual", "f_query": "query", "f_key": "key", "f_value": "value", "W": "mix"}
    attention["project_mm"] = "fuse"
    decoder = {"up": "up", "conv1.conv": "conv1", "conv1.gn": "norm1", "conv2.conv": "conv2", "conv2.gn": "norm2"}
    for leaf in ("weight", "bias"):
        rules += [(f"decode_head.TA.*.{t}.0.{leaf}", f"head.attention.*.{o}.{leaf}") for t, o in attention.items()]
        rules += [(f"decode_head.updecoder.*.{t}.{leaf}", f"head.decoder.*.{o}.{leaf}") for t, o in decoder.items()]
    return Layout(
        name="HG-RSOVSSeg",
        marker="decode_head.conv_seg.weight",
        rules=tuple(rules),
        unread={"vlm.clip.logit_scale": math.log(100)},
        fused_attention=True,
    )


LAYOUTS = {layout.name: layout for layout in (_gsnet(), _hg_rsovsseg())}


def from_any_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` in this project's names, whichever known project it comes from."""
    for layout in LAYOUTS.values():
        if layout.marker in state:
            return layout.to_ours(state)
    return state
