"""The contract of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec

if TYPE_CHECKING:
    from detectron2.config import CfgNode


class Head(nn.Module, ABC):
    """Turns tower features into logits; knows neither towers nor data sets."""

    @abstractmethod
    def request(self) -> FeatureRequest:
        """Say what the towers have to deliver. Called once, when the model is built."""

    @abstractmethod
    def forward(self, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None) -> Tensor:
        """Return [B, T, h, w] logits; any T, and permuting the classes permutes the logits."""


def build_head(cfg: CfgNode, vlm: TowerSpec, prior: TowerSpec | None) -> Head:
    """Build ``MODEL.SEM_SEG_HEAD`` for towers of the given shapes."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, vlm, prior)


def tapped_blocks(configured: Sequence[int], depth: int, levels: int, key: str) -> tuple[int, ...]:
    """Return the blocks of a tower that guide a decoder, shallow to deep as configured or evenly spread.

    Evenly spread are 3 and 7 of 12, 7 and 15 of 24, 5, 11 and 17 of 24. The last block is never among them.

    Raises:
        ValueError: ``configured``, the value of ``key``, is not one block below the last per level.
    """
    blocks = tuple(configured) or tuple((level + 1) * depth // (levels + 1) - 1 for level in range(levels))
    if len(blocks) != levels or not all(0 <= block < depth - 1 for block in blocks):
        raise ValueError(
            f"{key} must name {levels} blocks, one per decoder level, between 0 and {depth - 2}; got {list(blocks)}."
        )
    return blocks


def classes_per_pass(configured: int, images: int, classes: int, maps: int) -> int:
    """Return how many classes the memory-hungry parts of a head take at once.

    With gradients all: autograd keeps everything anyway. Otherwise as configured (``MODEL.SEM_SEG_HEAD.CLASS_CHUNK``),
    or, for 0, so that images times classes is about ``maps``.
    """
    if torch.is_grad_enabled():
        return classes
    return configured or max(maps // images, 1)
