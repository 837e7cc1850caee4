"""Heads of small or published shape with healthy weights, and random features for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from golden import fill
from torch import Tensor, nn

from ovrs.config.options import options_node, read_options
from ovrs.heads import CATSegHead, DRSegHead, GSNetHead, Head, HeadContext, RSKTSegHead
from ovrs.structures import (
    ConceptFinder,
    FoundConcepts,
    LastBlock,
    TextFeatures,
    TokenSequences,
    TowerFeatures,
    TowerRequest,
    TowerSpec,
)

VLM = TowerSpec(width=24, depth=6, patch_size=16, input_size=96, joint_dim=16)  # 6 x 6 cells
PRIOR = TowerSpec(width=20, depth=6, patch_size=8, input_size=96)  # 12 x 12 cells
COMPANION = TowerSpec(width=18, depth=6, patch_size=32, input_size=192)  # 6 x 6 cells

# Sizes of small heads; each takes those that it has.
SMALL = {
    "hidden_dim": 32,
    "window_size": 4,
    "pad_classes_to": 16,
    "decoder_dims": (32, 16),
    "tap_dims": (12, 10),
    "tap_proj_dims": (8, 6),
    "guidance_channels": (32, 16),
    "key_channels": 20,
    # A graph of 36 nodes that is sparse, as those of 576 nodes are.
    "pdgr": {"topk": 7, "edge_hidden": 12},
    "spsd": {"select": "random"},
}

Inputs = tuple[dict[str, TowerFeatures], TextFeatures]


def filled(module: nn.Module) -> nn.Module:
    """Give every parameter a value of its own, zero-initialised ones included."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    values = fill.filled_state_dict(shapes)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    return module


def towers_of(**towers: TowerSpec | None) -> dict[str, TowerSpec]:
    """The towers that exist."""
    return {name: spec for name, spec in towers.items() if spec is not None}


def configured(kind: type[Head], towers: Mapping[str, TowerSpec], **options: Any) -> Head:
    """A head of the defaults but for ``options``, read and checked as those of a configuration are.

    ``prompts``, ``class_chunk``, ``initial_probability`` and ``checkpoint`` go to the context. Groups are dictionaries.
    """
    context = {item.name: options.pop(item.name) for item in fields(HeadContext) if item.name in options}
    node = options_node(kind.options)
    _set(node, options)
    return kind(read_options(kind.options, node, f"MODEL.{kind.group}"), towers, HeadContext(**context))


def _set(node: CfgNode, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        key = name.rstrip("_").upper()
        assert key in node, key
        if isinstance(value, Mapping):
            _set(node[key], value)
        else:
            node[key] = list(value) if isinstance(value, tuple) else value


def small_options(kind: type[Head], **options: Any) -> dict[str, Any]:
    """The sizes of ``SMALL`` that a head has, and ``options`` on top."""
    own = {item.name for item in fields(kind.options)}
    merged: dict[str, Any] = {name: value for name, value in SMALL.items() if name in own}
    for name, value in options.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, Mapping) else value
    return merged


def small(kind: type[Head], towers: Mapping[str, TowerSpec], **options: Any) -> Head:
    """A small filled head in evaluation mode."""
    return filled(configured(kind, towers, **small_options(kind, **options))).eval()


def small_head(vlm: TowerSpec = VLM, prior: TowerSpec | None = PRIOR, **options: Any) -> GSNetHead:
    """A filled GSNet head in evaluation mode."""
    return small(GSNetHead, towers_of(vlm=vlm, prior=prior), **options)


def small_cat_seg(**options: Any) -> CATSegHead:
    """A filled CAT-Seg head in evaluation mode."""
    return small(CATSegHead, {"vlm": VLM}, **options)


def small_rskt_seg(
    vlm: TowerSpec = VLM, prior: TowerSpec | None = PRIOR, companion: TowerSpec | None = COMPANION, **options: Any
) -> RSKTSegHead:
    """A filled RSKT-Seg head of two aggregator layers, in evaluation mode."""
    towers = towers_of(vlm=vlm, prior=prior, companion=companion)
    return small(RSKTSegHead, towers, **{"num_layers": 2, **options})


def small_dr_seg(
    vlm: TowerSpec = VLM, prior: TowerSpec | None = PRIOR, companion: TowerSpec | None = None, **options: Any
) -> DRSegHead:
    """A filled DR-Seg head of two aggregator layers, in evaluation mode."""
    towers = towers_of(vlm=vlm, prior=prior, companion=companion)
    return small(DRSegHead, towers, **{"num_layers": 2, **options})


@dataclass(frozen=True)
class RandomLastBlock(LastBlock):
    """A last block of two heads and random weights."""

    inward: Tensor  # [W, 3 W]
    outward: Tensor  # [W, W]
    projection: Tensor  # [W, C]

    @classmethod
    def of(cls, tower: TowerSpec, images: int, grid: tuple[int, int], generator: torch.Generator) -> RandomLastBlock:
        width = tower.width
        shapes = ((width, 3 * width), (width, width), (width, tower.joint_dim))
        tokens = torch.randn(images, 1 + grid[0] * grid[1], width, generator=generator)
        return cls(tokens, grid, *(torch.randn(*shape, generator=generator) / width**0.5 for shape in shapes))

    def qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(x.unflatten(-1, (2, -1)).transpose(1, 2) for x in (self.input @ self.inward).chunk(3, dim=-1))

    def close(self, mixed: Tensor, *, residual: bool = False) -> Tensor:
        x = mixed.transpose(1, 2).flatten(2) @ self.outward
        return self.input + x if residual else x

    def joint(self, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, tokens.shape[-1:]) @ self.projection


@dataclass(frozen=True)
class ProductFinder(ConceptFinder):
    """Finds by products: a prompt's mean token with cells for the map, with four fixed cells for the candidates."""

    def find(self, image: int, prompts: TokenSequences) -> FoundConcepts:
        cells = self.maps[0][image].flatten(1)  # [W, h * w]
        likeness = prompts.mean @ cells
        queries = cells.T[:4].expand(len(likeness), -1, -1)
        return FoundConcepts(likeness.mean(dim=1), likeness[:, :4], queries, likeness[..., None], prompts)

    def draw(self, image: int, found: FoundConcepts) -> tuple[Tensor, Tensor]:
        cells = self.maps[0][image]
        return found.memory[..., 0].unflatten(1, cells.shape[1:]), torch.einsum("nkc,chw->nkhw", found.queries, cells)


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
) -> Inputs:
    """Random features with exactly what the head asks for: no blocks, views or towers beyond that."""
    generator = torch.Generator().manual_seed(classes)
    specs = {"vlm": vlm, "prior": prior, "companion": companion}
    grids = {"vlm": grid, "prior": prior_grid}

    def features(name: str, request: TowerRequest) -> TowerFeatures:
        tower = specs[name]
        side = tower.input_size // tower.patch_size
        size = grids.get(name) or (side, side)
        joint = tower.width if request.dense == "final_norm" else tower.joint_dim

        def maps(channels: int) -> Tensor:
            return torch.randn(images, channels, *size, generator=generator)

        dense = None if request.dense == "none" else maps(joint)
        return TowerFeatures(
            dense=dense,
            blocks={block: maps(tower.width) for block in request.blocks},
            token=torch.randn(images, joint, generator=generator) if request.token else None,
            last_block=RandomLastBlock.of(tower, images, size, generator) if request.last_block else None,
            concepts=ProductFinder((maps(tower.joint_dim),), (2 * size[0], 3 * size[1])) if request.concepts else None,
            rotated=torch.stack([dense, *(maps(joint) for _ in range(3))], dim=1) if request.rotations else None,
        )

    asked = {name: features(name, request) for name, request in head.requests().items()}
    embeddings = F.normalize(torch.randn(classes, prompts, vlm.joint_dim, generator=generator), dim=-1)
    tokens = None
    if any(request.concepts for request in head.requests().values()):
        values = torch.randn(classes * prompts, 5, vlm.joint_dim, generator=generator)
        tokens = TokenSequences(values, torch.arange(5) < torch.randint(2, 6, (len(values), 1), generator=generator))
    return asked, TextFeatures(embeddings, torch.arange(classes), classes, tokens)


def choose_classes(text: TextFeatures, indices: list[int]) -> TextFeatures:
    """The same text features, of a word per class, with other classes or another order."""
    tokens = text.tokens and text.tokens[indices]
    return TextFeatures(text.embeddings[indices], torch.arange(len(indices)), len(indices), tokens)


def choose_images(inputs: Inputs, index: int) -> Inputs:
    """A batch of one image out of a larger one."""
    features, text = inputs
    return {name: of.map(lambda value: value[index : index + 1]) for name, of in features.items()}, text


def in_double(inputs: Inputs) -> Inputs:
    """The inputs in float64."""
    features, text = inputs
    embeddings = F.normalize(text.embeddings.double(), dim=-1)
    doubled = {name: of.map(Tensor.double) for name, of in features.items()}
    return doubled, TextFeatures(embeddings, text.class_of, text.classes)


def with_tower(inputs: Inputs, name: str, **changes: Any) -> Inputs:
    """The inputs with other features of one tower."""
    features, text = inputs
    return {**features, name: replace(features[name], **changes)}, text


def asks(
    vlm: tuple[int, ...] | None = (),
    prior: tuple[int, ...] | None = None,
    companion: tuple[int, ...] | None = None,
    *,
    dense: str = "class_residual",
    prior_dense: str = "none",
    rotations: bool = False,
) -> dict[str, TowerRequest]:
    """The requests of a head by the blocks that it wants; ``None`` for a tower of which it wants nothing."""
    requests = {
        "vlm": None if vlm is None else TowerRequest(vlm, dense, rotations=rotations),
        "prior": None if prior is None else TowerRequest(prior, prior_dense),
        "companion": None if companion is None else TowerRequest(companion, "none"),
    }
    return {name: request for name, request in requests.items() if request is not None}
