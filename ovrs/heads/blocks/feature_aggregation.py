"""Joining image features and class embeddings before a decoder (FA of HG-RSOVSSeg and its Table 4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.cost_volume import cosine_cost
from ovrs.heads.blocks.work import as_published


class ProductAggregation(nn.Module):
    """Channel by channel product of unit image features and unit embeddings: a cosine before its sum.

    Entries are about 1 / C, and nothing rescales them. They are not rounded to a shorter type here.
    """

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """[B, C, h, w] features of any length and [T, 1, C] unit embeddings -> F_a [B, T, C, h, w]."""
        return F.normalize(image, dim=1)[:, None] * text[None, :, 0, :, None, None]

    extra_work = as_published


class SimilarityAggregation(nn.Module):
    """The cosine of image and class, widened by a 1x1 convolution (our reading of Table 4's "similarity").

    Args:
        channels: of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(1, channels, kernel_size=1)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """[B, C, h, w] features and [T, 1, C] unit embeddings -> [B, T, channels, h, w]."""
        similarity = cosine_cost(image, text)
        return self.widen(similarity.flatten(0, 1)).unflatten(0, similarity.shape[:2])
