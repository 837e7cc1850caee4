"""Spatial aggregation of cost maps: a pair of Swin blocks guided by the image (CAT-Seg, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.constant import constant
from ovrs.heads.blocks.work import GUIDANCE

_MASKED = -100.0  # Swin's value; not -inf, and part of the trained models


class Mlp(nn.Sequential):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, hidden: int, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__(nn.Linear(width, hidden), activation(), nn.Linear(hidden, width))


class GuidedWindowAttention(nn.Module):
    """Window attention whose queries and keys also see a guidance map.

    The guidance belongs to the image, not to the class. A linear layer over ``[x ; guidance]`` is the sum
    of one over each, so the guidance's share is computed once per image and added to all classes.

    Args:
        width: channels of the cost map and of the guidance.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(2 * width, width)
        self.k = nn.Linear(2 * width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, guidance: Tensor, window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
        """Attend within windows; ``x`` [B, T, H, W, C], ``guidance`` [B, H, W, C] -> [B, T, H, W, C]."""
        width, (height, breadth) = x.shape[-1], x.shape[2:4]
        q_x, q_g = self.q.weight.split(width, dim=1)
        k_x, k_g = self.k.weight.split(width, dim=1)
        shared = F.linear(guidance, torch.cat([q_g, k_g]), torch.cat([self.q.bias, self.k.bias]))
        own = F.linear(x, torch.cat([q_x, k_x, self.v.weight]), F.pad(self.v.bias, (2 * width, 0)))
        q, k, v = own.chunk(3, dim=-1)
        q_shared, k_shared = shared[:, None].chunk(2, dim=-1)

        pad = (-height % window[0], -breadth % window[1])
        parts = [self._to_windows(part, window, shift, pad) for part in (q + q_shared, k + k_shared, v)]
        mask = None
        if any(shift) or any(pad):
            mask = window_mask((height, breadth), window, shift, pad, self.heads, x.device, parts[0].dtype)
        out = F.scaled_dot_product_attention(*parts, attn_mask=mask)
        return self.proj(self._from_windows(out, x.shape, window, shift, pad))

    def extra_work(self, x: Tensor, *_: object) -> dict[str, int]:
        """The guidance's half of the queries and keys, for all classes but one."""
        images, classes, height, breadth, width = x.shape
        return {GUIDANCE: (classes - 1) * images * height * breadth * 2 * width**2}

    def _to_windows(self, x: Tensor, window: tuple[int, int], shift: tuple[int, int], pad: tuple[int, int]) -> Tensor:
        """[B, T, H, W, C] -> [B * T, windows * heads, tokens, C / heads]."""
        x = x.flatten(0, 1)
        if any(pad):
            x = F.pad(x, (0, 0, 0, pad[1], 0, pad[0]))
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), dims=(1, 2))
        x = x.unflatten(3, (self.heads, -1)).unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 3)

    def _from_windows(
        self, x: Tensor, shape: torch.Size, window: tuple[int, int], shift: tuple[int, int], pad: tuple[int, int]
    ) -> Tensor:
        batch, classes, height, breadth, _ = shape
        rows, columns = (height + pad[0]) // window[0], (breadth + pad[1]) // window[1]
        x = x.unflatten(2, window).unflatten(1, (rows, columns, self.heads))
        x = x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        if any(shift):
            x = x.roll(shift, dims=(1, 2))
        return x[:, :height, :breadth].unflatten(0, (batch, classes))


@constant
def window_mask(
    grid: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
    pad: tuple[int, int],
    heads: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Return the [1, windows * heads, tokens, tokens] additive mask of shifted or padded windows.

    Tokens attend to each other only if they were neighbours before the cyclic shift; padding, which
    fills up a grid that the window does not divide, only to itself.
    """
    height, breadth = grid[0] + pad[0], grid[1] + pad[1]
    region = torch.zeros(height, breadth, dtype=torch.long)
    for axis, (size, side, step) in enumerate(zip((height, breadth), window, shift, strict=True)):
        if step:
            index = torch.zeros(size, dtype=torch.long)
            index[size - side : size - step] = 1
            index[size - step :] = 2
            region = region * 3 + (index[:, None] if axis == 0 else index[None, :])
    is_pad = torch.ones(height, breadth, dtype=torch.bool)
    is_pad[: grid[0], : grid[1]] = False
    region[is_pad.roll((-shift[0], -shift[1]), dims=(0, 1))] = -1

    region = region.unflatten(1, (-1, window[1])).unflatten(0, (-1, window[0]))
    region = region.transpose(1, 2).flatten(2, 3).flatten(0, 1)
    different = region[:, :, None] != region[:, None, :]
    mask = torch.zeros(different.shape).masked_fill(different, _MASKED)
    return mask.repeat_interleave(heads, dim=0)[None].to(device, dtype)


class GuidedSwinBlock(nn.Module):
    """Pre-norm window attention and MLP (exact GELU)."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = GuidedWindowAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor, guidance: Tensor, window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
        """Refine ``x`` [B, T, H, W, C] with ``guidance`` [B, H, W, C], already normalised."""
        x = x + self.attn(self.norm1(x), guidance, window, shift)
        return x + self.mlp(self.norm2(x))


class GuidedSwinPair(nn.Module):
    """Two Swin blocks, the second shifted by half a window.

    A window that is not smaller than the grid becomes the grid, without shift; a grid that the window
    does not divide is padded behind a mask.

    Args:
        width: channels of cost maps and guidance.
        heads: attention heads.
        window: side of a window in cells.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.guidance_norm = nn.LayerNorm(width)
        self.block_1 = GuidedSwinBlock(width, heads)
        self.block_2 = GuidedSwinBlock(width, heads)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Refine ``x`` [B, T, H, W, C] with appearance guidance [B, H, W, C]."""
        grid = x.shape[2:4]
        window = tuple(min(self.window, side) for side in grid)
        shift = tuple(self.window // 2 if self.window < side else 0 for side in grid)
        guidance = self.guidance_norm(guidance)
        x = self.block_1(x, guidance, window, (0, 0))
        return self.block_2(x, guidance, window, shift)
