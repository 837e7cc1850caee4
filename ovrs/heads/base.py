"""The contract of a head."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec
from ovrs.vocabulary import Vocabulary

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_LOG_PERIOD = 20  # iterations; the trainer's
_BINS = 20


class Head(nn.Module, ABC):
    """Turns tower features into logits; knows neither towers nor data sets."""

    @abstractmethod
    def request(self) -> FeatureRequest:
        """Say what the towers have to deliver. Called once, when the model is built."""

    @abstractmethod
    def forward(self, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None) -> Tensor:
        """Return [B, T, h, w] logits; any T, and permuting the classes permutes the logits."""


def build_head(cfg: CfgNode, vlm: TowerSpec, prior: TowerSpec | None, companion: TowerSpec | None = None) -> Head:
    """Build ``MODEL.SEM_SEG_HEAD`` for towers of the given shapes.

    Raises:
        ValueError: there is a companion CLIP that the head does not use; it would cost time for nothing.
    """
    build = SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)
    takes_companion = "companion" in inspect.signature(getattr(build, "from_config", build)).parameters
    head = build(cfg, vlm, prior, companion) if takes_companion else build(cfg, vlm, prior)
    if companion is not None and not head.request().companion_blocks:
        remedy = "switch USE_COMPANION_TAPS on, or set" if takes_companion else "set"
        raise ValueError(
            f"MODEL.COMPANION.ARCH is {cfg.MODEL.COMPANION.ARCH!r}, but {cfg.MODEL.SEM_SEG_HEAD.NAME} as configured "
            f"asks for none of its blocks: {remedy} MODEL.COMPANION.ARCH to ''."
        )
    return head


def is_logged(head: Head) -> bool:
    """Whether diagnostics of this pass go into the training log, which is written every 20 iterations."""
    return head.training and has_event_storage() and get_event_storage().iter % _LOG_PERIOD == 0


def log_scalars(group: str, **values: Tensor) -> None:
    """Put diagnostics into the training log, as ``group/name``."""
    scalars = {f"{group}/{name}": float(value.detach()) for name, value in values.items()}
    get_event_storage().put_scalars(**scalars, smoothing_hint=False)


def log_histogram(name: str, values: Tensor) -> None:
    """Put a histogram of values in 0..1 into the training log."""
    get_event_storage().put_histogram(name, values.detach().float().cpu(), bins=_BINS)


def prompt_channels(cfg: CfgNode, prompt_fusion: str, key: str) -> int:
    """Return how many prompts per class become channels of the cost volume; 0 where their embeddings are averaged.

    Raises:
        ValueError: ``prompt_fusion``, the value of ``key``, is neither ``mean`` nor ``channels``.
    """
    if prompt_fusion not in ("mean", "channels"):
        raise ValueError(f"{key} must be 'mean' or 'channels', got {prompt_fusion!r}.")
    return len(Vocabulary.templates_of(cfg)) if prompt_fusion == "channels" else 0
