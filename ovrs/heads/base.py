"""The contract of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

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
