"""Pooling of cost maps before class attention, and its undoing (CAT-Seg)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ovrs.heads.blocks.precision import channels_last


def average_pool(x: Tensor, side: int) -> Tensor:
    """Average pooling of the two spatial axes of [B, T, H, W, C]; 1 returns ``x``."""
    if side == 1:
        return x
    maps = x.flatten(0, 1).permute(0, 3, 1, 2)
    return F.avg_pool2d(maps, side).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def enlarge_aligned(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear enlargement of [B, T, h, w, C] with aligned corners, as the originals do here only."""
    if tuple(x.shape[2:4]) == tuple(size):
        return x
    # In the other order CUDA's kernel is parallel over the cells of one map only.
    maps = channels_last(x.flatten(0, 1).permute(0, 3, 1, 2))
    maps = F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)
    return maps.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])
