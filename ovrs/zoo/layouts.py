"""Name maps between this project's state dicts and those of the original projects.

A layout is a list of pairs ``official, ours``; every ``*`` stands for some text and is carried over. The
map is one to one (buffers that follow from the geometry are dropped), so weights can be exported too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ovrs.errors import WeightsError


@dataclass(frozen=True)
class Layout:
    """How one original project names its tensors.

    Attributes:
        name: of the model.
        marker: a tensor name that this layout has and none further down the list of layouts.
        rules: (official, ours) name patterns, tried in order, with equally many ``*``.
        dropped: patterns of official tensors that follow from the geometry, or that nothing reads.
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

    def drops(self, name: str) -> bool:
        """Whether an official tensor has no place here: it follows from the geometry, or nothing reads it."""
        return _matches_any(name, self.dropped)

    def to_ours(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename official tensors into this project's names.

        Raises:
            WeightsError: tensors that no rule knows.
        """
        state = split_fused_attention({n: t for n, t in state.items() if not self.drops(n)})
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
    """Compile a pattern: the last ``*`` takes any text, those before it one component of a name."""
    *stars, last = [re.escape(part) for part in template.split("*")]
    return re.compile("([^.]+)".join(stars) + ("(.+)" if stars else "") + last + r"\Z")


def _rename(name: str, rules: Sequence[tuple[str, str]]) -> str | None:
    for source, target in rules:
        match = _pattern(source).match(name)
        if match:
            parts = target.split("*")
            return "".join(map("".join, zip(parts, (*match.groups(), ""), strict=True)))
    return None


def _matches_any(name: str, templates: Sequence[str]) -> bool:
    return any(_pattern(template).match(name) for template in templates)


_PREDICTOR = "sem_seg_head.predictor"
_HEAD = f"{_PREDICTOR}.transformer"


def _cat_seg_rules(
    layers: list[tuple[str, str]], decoder: str, taps: dict[str, tuple[str, str]]
) -> list[tuple[str, str]]:
    """What CAT-Seg and its descendants share.

    Args:
        layers: rules of the aggregator's layers.
        decoder: official name of the decoder's stages, without number.
        taps: {our name of a guiding tower: (official name of its resampling layer, ``{}`` for the level's number;
            official name of its projections)}.
    """
    rules = [
        (f"{_PREDICTOR}.clip_model.*", "vlm.clip.*"),
        (f"{_HEAD}.guidance_projection.0.*", "head.aggregator.appearance.*"),
        (f"{_HEAD}.text_guidance_projection.0.*", "head.aggregator.text_guidance.*"),
        (f"{_HEAD}.head.*", "head.decoder.predictor.*"),
        *layers,
    ]
    stage = {"up": "up", "conv.double_conv.0": "conv1", "conv.double_conv.1": "norm1"}
    stage |= {"conv.double_conv.3": "conv2", "conv.double_conv.4": "norm2"}
    for level in range(2):
        for tower, (resample, project) in taps.items():
            ours = f"head.decoder.taps.{tower}.{level}"
            rules += [
                (f"{resample.format(level + 1)}.*", f"{ours}.resample.*"),
                (f"{_HEAD}.{project}.{level}.0.*", f"{ours}.project.*"),
            ]
        rules += [
            (f"{_HEAD}.{decoder}{level + 1}.{theirs}.*", f"head.decoder.stages.{level}.{own}.*")
            for theirs, own in stage.items()
        ]
    return rules


def _swin_rules() -> list[tuple[str, str]]:
    """CAT-Seg's aggregator layers."""
    theirs, ours = f"{_HEAD}.layers.*", "head.aggregator.layers.*"
    rules = []
    for block in ("block_1", "block_2"):
        rules += [
            (f"{theirs}.swin_block.{block}.mlp.fc1.*", f"{ours}.spatial.{block}.mlp.0.*"),
            (f"{theirs}.swin_block.{block}.mlp.fc2.*", f"{ours}.spatial.{block}.mlp.2.*"),
        ]
    return [
        *rules,
        (f"{theirs}.swin_block.*", f"{ours}.spatial.*"),
        *((f"{theirs}.attention.attention.{part}.*", f"{ours}.classes.{part}.*") for part in "qkv"),
        (f"{theirs}.attention.MLP.*", f"{ours}.classes.mlp.*"),
        (f"{theirs}.attention.*", f"{ours}.classes.*"),
    ]


def _efficient_rules() -> list[tuple[str, str]]:
    """RSKT-Seg's aggregator layers."""
    theirs, ours = f"{_HEAD}.layers.*", "head.aggregator.layers.*"
    return [
        (f"{theirs}.spatial_fusion.sa.attention.sr_k.*", f"{ours}.spatial.attn.reduce_k.*"),
        (f"{theirs}.spatial_fusion.sa.attention.sr_v.*", f"{ours}.spatial.attn.reduce_v.*"),
        (f"{theirs}.spatial_fusion.sa.attention.*", f"{ours}.spatial.attn.*"),
        (f"{theirs}.spatial_fusion.sa.mlp.dwconv.dwconv.*", f"{ours}.spatial.mix.*"),
        (f"{theirs}.spatial_fusion.sa.*", f"{ours}.spatial.*"),
        *(
            (f"{theirs}.class_fusion.sa.attention.{part}.*", f"{ours}.classes.{part}.*")
            for part in ("q", "k", "v", "proj")
        ),
        (f"{theirs}.class_fusion.sa.*", f"{ours}.classes.*"),
    ]


def _fusion_rules(ours: str) -> list[tuple[str, str]]:
    """The fusion of CLIP's and DINO's cost."""
    names = {"conv1": "embed", "conv2": "embed_second", "fusion_corr": "fuse"}
    return [(f"{_HEAD}.{theirs}.*", f"{ours}.{own}.*") for theirs, own in names.items()]


_SHIFT_MASKS = "*.attn_mask"
_PADDING = ("padding_tokens", "padding_guidance")
_CLIP_TAPS = ("upsample{}", "CLIP_decoder_guidance_projection")
_DINO_TAPS = ("dino_decod_proj{}", "DINO_decoder_guidance_projection")


def _cat_seg() -> Layout:
    return Layout(
        name="CAT-Seg",
        marker=f"{_HEAD}.decoder_guidance_projection.0.0.weight",
        rules=(
            (f"{_HEAD}.conv1.*", "head.embed.embed.*"),
            *_cat_seg_rules(_swin_rules(), "decoder", {"vlm": ("upsample{}", "decoder_guidance_projection")}),
        ),
        dropped=(_SHIFT_MASKS,),
        lifted=_PADDING,
    )


def _gsnet() -> Layout:
    return Layout(
        name="GSNet",
        marker=f"{_HEAD}.fusion_corr.weight",
        rules=(
            ("dino_model.*", "prior.vit.*"),
            ("dino_down_sample.*", "head.align.*"),
            *_fusion_rules("head.fusion.costs"),
            *_cat_seg_rules(_swin_rules(), "Fusiondecoder", {"vlm": _CLIP_TAPS, "prior": _DINO_TAPS}),
        ),
        dropped=(_SHIFT_MASKS,),
        lifted=_PADDING,
    )


def _rskt_seg() -> Layout:
    """RSKT-Seg with its efficient aggregator, as all published checkpoints have it, of any depth.

    RemoteCLIP's text tower is in the official files, but nothing reads it.
    """
    companion = f"{_PREDICTOR}.clip_model_remote"
    remote = ("upsample{}_remote", "CLIP_decoder_guidance_projection_remote")
    taps = {"vlm": _CLIP_TAPS, "companion": remote, "prior": _DINO_TAPS}
    return Layout(
        name="RSKT-Seg",
        marker=f"{_HEAD}.layers.0.spatial_fusion.sa.norm1.weight",
        rules=(
            ("dino_model.*", "prior.vit.*"),
            ("dino_down_sample.*", "head.align.*"),
            (f"{companion}.visual.*", "companion.visual.*"),
            *_fusion_rules("head.fusion"),
            *_cat_seg_rules(_efficient_rules(), "Fusiondecoder", taps),
        ),
        dropped=(
            f"{companion}.transformer.*",
            *(f"{companion}.{name}" for name in ("positional_embedding", "text_projection", "logit_scale")),
            *(f"{companion}.{name}.*" for name in ("token_embedding", "ln_final")),
        ),
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


LAYOUTS = {layout.name: layout for layout in (_rskt_seg(), _cat_seg(), _gsnet(), _hg_rsovsseg())}


def layout_of(state: Mapping[str, Tensor]) -> Layout | None:
    """Return the original project whose names ``state`` has; ``None`` for others, this project's among them."""
    return next((layout for layout in LAYOUTS.values() if layout.marker in state), None)


def from_any_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` in this project's names, whichever known project it comes from."""
    layout = layout_of(state)
    return layout.to_ours(state) if layout else state


def split_fused_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename every ``...in_proj_weight`` of a state dict into its three parts."""
    result = {}
    for name, tensor in state.items():
        if name.endswith(".in_proj_weight"):
            stem = name[: -len("in_proj_weight")]
            for part, weight in zip("qkv", tensor.chunk(3), strict=True):
                result[f"{stem}{part}_proj_weight"] = weight
        else:
            result[name] = tensor
    return result


def fuse_split_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`split_fused_attention`."""
    result = {}
    for name, tensor in state.items():
        stem = name.removesuffix("q_proj_weight")
        if stem != name:
            result[f"{stem}in_proj_weight"] = torch.cat([state[f"{stem}{part}_proj_weight"] for part in "qkv"])
        elif not name.endswith(("k_proj_weight", "v_proj_weight")):
            result[name] = tensor
    return result
