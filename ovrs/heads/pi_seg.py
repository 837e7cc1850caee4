"""Pi-Seg: CAT-Seg that trains on noisy features and forgets the noise afterwards.

Words and pixels are moved by noise of learned mean and deviation before they are compared: one pair of vectors for
all words, and for a pixel what it attends to among the words. Nothing of it is left at inference. What the noise does
not touch, the features that guide aggregator and decoder, is not settled by the published description.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.config.options import option
from ovrs.heads.base import HeadContext, register_head
from ovrs.heads.blocks.work import as_published
from ovrs.heads.cat_seg import CATSegHead
from ovrs.heads.cost_volume import PromptOptions
from ovrs.structures import TextFeatures, TowerFeatures, TowerSpec

Noise = Literal["none", "gaussian", "laplace", "uniform", "gumbel", "student_t"]
_DEGREES_OF_FREEDOM = 3.0  # of student_t
_INITIAL = 0.02  # deviation of the learned vectors at the start


@dataclass(frozen=True)
class PiSegOptions(PromptOptions):
    """``MODEL.PI_SEG``: CAT-Seg's, and the noise."""

    text_noise: Noise = option("gaussian", "distribution of the noise on words, in training")
    pixel_noise: Noise = option("gaussian", "the same on pixels")


@register_head("PI_SEG", PiSegOptions)
class PiSegHead(CATSegHead):
    """CAT-Seg with noise in training."""

    extra_work = as_published

    def __init__(self, options: PiSegOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__(options, towers, context)
        width = towers["vlm"].joint_dim
        self.text_noise, self.pixel_noise = options.text_noise, options.pixel_noise
        self.text_shift = nn.Parameter(_INITIAL * torch.randn(2, width))  # mean and deviation
        self.attention = nn.MultiheadAttention(width, num_heads=1, batch_first=True)
        self.pixel_shift = nn.Linear(width, 2 * width)

    def queries(self, text: TextFeatures) -> Tensor:
        """Return the [T, P, C] embeddings that pixels are compared with: in training moved, and unit again."""
        queries = super().queries(text)
        if not self.training or self.text_noise == "none":
            return queries
        mean, deviation = self.text_shift
        return F.normalize(queries + deviation.abs() * _DRAW[self.text_noise](queries) + mean, dim=-1)

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        if not self.training or self.pixel_noise == "none":
            return super().forward(features, text)
        dense = features["vlm"].dense
        pixels, words = dense.flatten(2).transpose(1, 2), text.mean.expand(len(dense), -1, -1)
        attended, _ = self.attention(pixels.detach(), words, words, need_weights=False)
        mean, deviation = self.pixel_shift(attended).transpose(1, 2).unflatten(2, dense.shape[-2:]).chunk(2, dim=1)
        return self.compare(dense + deviation.abs() * _DRAW[self.pixel_noise](dense) + mean, dense, features, text)


def _exponential(like: Tensor) -> Tensor:
    return torch.empty_like(like).exponential_()


def _student_t(like: Tensor) -> Tensor:
    return torch.distributions.StudentT(_DEGREES_OF_FREEDOM).sample(like.shape).to(like)


_DRAW: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": torch.randn_like,
    "laplace": lambda like: _exponential(like) - _exponential(like),
    "uniform": lambda like: 2 * torch.rand_like(like) - 1,
    "gumbel": lambda like: -_exponential(like).log(),
    "student_t": _student_t,
}
