"""Adapting learned position embeddings to another grid (PEA).

CLIP-based segmenters and DINO resize differently, and the difference is not small: on white noise the
two disagree by 7.7 % (rms) for a 28 to 48 resize. Both use PyTorch's bicubic kernel (a = -0.75)
without antialiasing.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.caching import ParameterCache

Rule = Literal["size", "dino"]
_GRIDS = 8  # tables remembered per tower


class PositionTables:
    """The position embedding of one tower for any grid, resized once per grid unless it trains.

    Args:
        rule: see :func:`adapt_position_embedding`.
    """

    def __init__(self, rule: Rule = "size") -> None:
        self._rule = rule
        self._cache: ParameterCache[Tensor] = ParameterCache(_GRIDS)

    def __call__(self, embedding: nn.Parameter, grid: tuple[int, int], dtype: torch.dtype | None = None) -> Tensor:
        """Return [1 + rows * columns, W] positions.

        Args:
            embedding: [1 + g * g, W] or [1, 1 + g * g, W], always the same parameter.
            grid: (rows, columns).
            dtype: of the result; by default the embedding's.
        """
        return self._cache(
            (grid, dtype),
            [embedding],
            lambda: adapt_position_embedding(embedding.flatten(0, -2), grid, self._rule).to(dtype or embedding.dtype),
        )


def adapt_position_embedding(embedding: Tensor, grid: tuple[int, int], rule: Rule = "size") -> Tensor:
    """Resize a position embedding with one leading class-token row.

    Args:
        embedding: [1 + g * g, W], the class token first, then a square grid in row-major order.
        grid: target (rows, columns).
        rule: ``size`` samples positions by the ratio of the sizes (CLIP, Algorithm 1 of HG-RSOVSSeg);
            ``dino`` by the factor (size + 0.1) / g, as DINO's own code does.

    Returns:
        [1 + rows * columns, W]; the input itself where the grid is the native one.

    Raises:
        ValueError: the embedding's grid is not a square.
    """
    native = round((embedding.shape[0] - 1) ** 0.5)
    if native * native != embedding.shape[0] - 1:
        raise ValueError(f"position embedding of {embedding.shape[0]} rows is not 1 + a square grid.")
    if grid == (native, native):
        return embedding

    table = embedding[1:].unflatten(0, (native, native)).permute(2, 0, 1)[None].float()
    if rule == "size":
        table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
    else:
        scale = tuple((side + 0.1) / native for side in grid)
        table = F.interpolate(table, scale_factor=scale, mode="bicubic", align_corners=False)
        assert tuple(table.shape[-2:]) == tuple(grid), (table.shape, grid)
    table = table[0].permute(1, 2, 0).flatten(0, 1).to(embedding.dtype)
    return torch.cat([embedding[:1], table])
