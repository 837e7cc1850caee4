"""Heads of small or published shape with healthy weights, and random features for them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from golden import fill
from torch import Tensor, nn

from ovrs.heads import CATSegHead, DRSegHead, GSNetHead, Head, RSKTSegHead
from ovrs.heads.blocks.aggregator import EFFICIENT, SWIN, AggregatorOptions
from ovrs.heads.blocks.graph import GraphOptions
from ovrs.heads.blocks.guided_decoder import STANDARD_DECODER, DecoderOptions
from ovrs.heads.dr_seg import ChannelOrder, FusionOptions
from ovrs.heads.gsnet import GSNET_DECODER
from ovrs.heads.rskt_seg import RSKT_DECODER
from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec
from ovrs.vocabulary import Vocabulary

VLM = TowerSpec(width=24, depth=6, patch_size=16, input_size=96, joint_dim=16)  # 6 x 6 cells
PRIOR = TowerSpec(width=20, depth=6, patch_size=8, input_size=96)  # 12 x 12 cells
COMPANION = TowerSpec(width=18, depth=6, patch_size=32, input_size=192)  # 6 x 6 cells

SMALL = {
    "hidden_dim": 32,
    "window_size": 4,
    "pad_classes_to": 16,
    "decoder_dims": (32, 16),
    "tap_dims": (12, 10),
    "tap_proj_dims": (8, 6),
}

# A graph of 36 nodes that is sparse, as those of 576 nodes are.
SMALL_GRAPH = {"topk": 7, "edge_hidden": 12}

Inputs = tuple[ImageFeatures, TextFeatures, PriorFeatures | None]


def filled(module: nn.Module) -> nn.Module:
    """Give every parameter a value of its own, zero-initialised ones included."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    values = fill.filled_state_dict(shapes)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    return module


def head_options(defaults: DecoderOptions = GSNET_DECODER, kind: AggregatorOptions = SWIN, **options: object) -> dict:
    """A small head's options, given flat, sorted into those of the aggregator, of the decoder and the rest."""
    options = {**SMALL, **options}

    def taken(template: object) -> dict[str, object]:
        return {field.name: options.pop(field.name) for field in fields(template) if field.name in options}

    parts = {"aggregator": replace(kind, **taken(kind)), "decoder": replace(defaults, **taken(defaults))}
    return {**parts, **options}


def small_head(vlm: TowerSpec = VLM, prior: TowerSpec | None = PRIOR, **options: object) -> GSNetHead:
    """A filled head in evaluation mode."""
    return filled(GSNetHead(vlm=vlm, prior=prior, **head_options(**options))).eval()


def small_cat_seg(**options: object) -> CATSegHead:
    """A filled CAT-Seg head in evaluation mode."""
    return filled(CATSegHead(vlm=VLM, **head_options(STANDARD_DECODER, SWIN, **options))).eval()


def small_rskt_seg(
    vlm: TowerSpec = VLM,
    prior: TowerSpec | None = PRIOR,
    companion: TowerSpec | None = COMPANION,
    **options: object,
) -> RSKTSegHead:
    """A filled RSKT-Seg head of two aggregator layers, in evaluation mode."""
    options = head_options(RSKT_DECODER, EFFICIENT, **{"num_layers": 2, **options})
    return filled(RSKTSegHead(vlm=vlm, prior=prior, companion=companion, **options)).eval()


def dr_seg_options(
    *,
    vlm: TowerSpec = VLM,
    rho: float = 0.5,
    rms: Tensor | None = None,
    graph: dict[str, Any] | None = SMALL_GRAPH,
    fusion: dict[str, Any] | None = None,
    **options: object,
) -> dict[str, Any]:
    """A small DR-Seg head's options; ``graph`` and ``fusion`` say what differs, a graph of ``None`` switches it off."""
    order = torch.randperm(vlm.joint_dim, generator=torch.Generator().manual_seed(1))
    return {
        "vlm": vlm,
        "prior": PRIOR,
        "channels": ChannelOrder(order, rho, rms, "the test's"),
        "graph": None if graph is None else GraphOptions(**{**SMALL_GRAPH, **graph}),
        "fusion": FusionOptions(**fusion or {}),
        **head_options(STANDARD_DECODER, EFFICIENT, **{"num_layers": 2, **options}),
    }


def small_dr_seg(**options: object) -> DRSegHead:
    """A filled DR-Seg head of two aggregator layers, in evaluation mode; see :func:`dr_seg_options`."""
    return filled(DRSegHead(**dr_seg_options(**options))).eval()


def random_inputs(
    head: Head,
    vlm: TowerSpec = VLM,
    prior: TowerSpec | None = PRIOR,
    companion: TowerSpec | None = COMPANION,
    *,
    classes: int = 3,
    prompts: int = 1,
    images: int = 2,
    grid: tuple[int, int] | None = None,
    prior_grid: tuple[int, int] | None = None,
    companion_grid: tuple[int, int] | None = None,
) -> Inputs:
    """Random features with exactly what the head asks for: no blocks, views or towers beyond that."""
    generator = torch.Generator().manual_seed(classes)
    request: FeatureRequest = head.request()

    def maps(tower: TowerSpec, channels: int, size: tuple[int, int] | None) -> Tensor:
        side = tower.input_size // tower.patch_size
        return torch.randn(images, channels, *(size or (side, side)), generator=generator)

    dense = maps(vlm, vlm.joint_dim, grid)
    rotated = None
    if request.rotations:
        rotated = torch.stack([dense, *(maps(vlm, vlm.joint_dim, grid) for _ in range(3))], dim=1)
    image = ImageFeatures(
        dense,
        {block: maps(vlm, vlm.width, grid) for block in request.vlm_blocks},
        rotated,
        {block: maps(companion, companion.width, companion_grid) for block in request.companion_blocks},
    )
    of_prior = None
    if request.uses_prior:
        blocks = {block: maps(prior, prior.width, prior_grid) for block in request.prior_blocks}
        of_prior = PriorFeatures(maps(prior, prior.width, prior_grid), blocks)
    embeddings = F.normalize(torch.randn(classes, prompts, vlm.joint_dim, generator=generator), dim=-1)
    # Not from_strings: that refuses a single class, which heads know how to handle.
    words = Vocabulary(tuple((f"class {t}",) for t in range(classes)), tuple(f"{p} {{}}" for p in range(prompts)))
    return image, TextFeatures(embeddings, words), of_prior


def choose_classes(text: TextFeatures, indices: list[int]) -> TextFeatures:
    """The same text features with other classes or another order."""
    words = Vocabulary(tuple(text.vocabulary.synonyms[i] for i in indices), text.vocabulary.templates)
    return TextFeatures(text.embeddings[indices], words)


def choose_images(inputs: Inputs, index: int) -> Inputs:
    """A batch of one image out of a larger one."""
    image, text, prior = inputs

    def one(value: Any) -> Any:
        if isinstance(value, dict):
            return {block: one(part) for block, part in value.items()}
        return value if value is None else value[index : index + 1]

    def one_of_each(features: ImageFeatures | PriorFeatures) -> ImageFeatures | PriorFeatures:
        return type(features)(**{field.name: one(getattr(features, field.name)) for field in fields(features)})

    return one_of_each(image), text, one_of_each(prior) if prior is not None else None
