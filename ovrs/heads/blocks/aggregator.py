"""Aggregation of cost maps over space and classes (CAT-Seg; GSNet keeps it between fusion and decoder)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ovrs.heads.blocks.class_attention import ClassAttention, Kind
from ovrs.heads.blocks.swin import GuidedSwinPair


class AggregatorLayer(nn.Module):
    """One layer: a guided Swin pair over space, then guided attention over classes.

    Args:
        width: channels of the cost maps and of both guidances.
        heads: attention heads of both parts.
        window: side of the Swin windows.
        kind: of the class attention, ``linear`` or ``full``.
        pad_to: classes up to which class attention sees padding.
    """

    def __init__(self, width: int, heads: int, window: int, kind: Kind, pad_to: int) -> None:
        super().__init__()
        self.spatial = GuidedSwinPair(width, heads, window)
        self.classes = ClassAttention(width, heads, kind, pad_to)

    def forward(self, x: Tensor, appearance: Tensor, text: Tensor, pooling: int, chunk: int) -> Tensor:
        """Refine cost maps.

        Args:
            x: [B, T, H, W, C] cost maps, channels last.
            appearance: [B, H, W, C] image guidance.
            text: [T, C] class guidance.
            pooling: of the class attention.
            chunk: classes per pass of the spatial part; 0 for all. The result does not depend on it.
        """
        if 0 < chunk < x.shape[1]:
            x = torch.cat([self.spatial(part, appearance) for part in x.split(chunk, dim=1)], dim=1)
        else:
            x = self.spatial(x, appearance)
        return self.classes(x, text, pooling)
