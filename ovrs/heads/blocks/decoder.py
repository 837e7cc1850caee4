"""Upsampling of cost maps with guidance from the image (CAT-Seg's decoder stage, GSNet's RIPD)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP_WIDTH = 16  # channels per group of the decoders' GroupNorm


class GuidedUpsampling(nn.Module):
    """Doubles the resolution, then mixes the result with guidance maps by two 3x3 convolutions.

    The first convolution runs over ``[upsampled ; guidance ...]``. Guidance belongs to the image, so its
    share is computed once per image and added to the share of every class.

    Args:
        in_dim: channels of the input.
        up_dim: channels after the transposed convolution.
        guidance_dims: channels of each guidance map, in the order of the weights.
        out_dim: channels of the output; a multiple of 16.
    """

    def __init__(self, in_dim: int, up_dim: int, guidance_dims: Sequence[int], out_dim: int) -> None:
        super().__init__()
        if out_dim % GROUP_WIDTH:
            raise ValueError(f"decoder widths must be multiples of {GROUP_WIDTH}, got {out_dim}.")
        self.up_dim = up_dim
        groups = out_dim // GROUP_WIDTH
        self.up = nn.ConvTranspose2d(in_dim, up_dim, kernel_size=2, stride=2)
        self.conv1 = nn.Conv2d(up_dim + sum(guidance_dims), out_dim, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, out_dim)
        self.conv2 = nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, out_dim)

    def guide(self, guidance: Sequence[Tensor]) -> Tensor | None:
        """Return the guidance's share of the first convolution, [B, out, 2h, 2w]; ``None`` without guidance."""
        if not guidance:
            return None
        return F.conv2d(torch.cat(list(guidance), dim=1), self.conv1.weight[:, self.up_dim :], padding=1)

    def forward(self, x: Tensor, share: Tensor | None) -> Tensor:
        """Upsample ``x`` [B, T, in, h, w] with the ``share`` from ``guide`` -> [B, T, out, 2h, 2w]."""
        shape = x.shape[:2]
        x = F.conv2d(self.up(x.flatten(0, 1)), self.conv1.weight[:, : self.up_dim], padding=1)
        if share is not None:
            x = (x.unflatten(0, shape) + share[:, None]).flatten(0, 1)
        x = F.relu(self.norm1(x), inplace=True)
        x = F.relu(self.norm2(self.conv2(x)), inplace=True)
        return x.unflatten(0, shape)


def resampler(in_dim: int, out_dim: int, scale: Fraction) -> nn.Module:
    """Return a learned resampling by ``scale``: transposed, 1x1 or strided convolution, no overlap.

    Raises:
        ValueError: neither the scale nor its inverse is a whole number.
    """
    if scale == 1:
        return nn.Conv2d(in_dim, out_dim, kernel_size=1)
    if scale.denominator == 1:
        return nn.ConvTranspose2d(in_dim, out_dim, kernel_size=int(scale), stride=int(scale))
    if scale.numerator == 1:
        return nn.Conv2d(in_dim, out_dim, kernel_size=scale.denominator, stride=scale.denominator)
    raise ValueError(f"cannot resample by {scale}: towers' grids must be whole multiples of each other.")
