"""Blending the scores of overlapping windows in a band of rows that moves down the raster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ovrs.raster.grid import Axis, blend_weights
from ovrs.raster.model import ModelInfo
from ovrs.scores import enlarge

_TINY = 1e-30  # divides what no window covered; those pixels have no data
BYTE_SCALE = 254  # a probability of 1 as a byte; 255 is nodata


@dataclass(frozen=True)
class Result:
    """The result of a block of canvas pixels.

    Attributes:
        labels: [h, w] integers.
        confidence: [h, w] bytes, the winner's probability times ``BYTE_SCALE``.
        scores: [T, h, w] bytes, or ``None``.
    """

    labels: np.ndarray
    confidence: np.ndarray
    scores: np.ndarray | None


class RollingBand:
    """Adds up weighted scores of windows, row by row of windows.

    Windows are added in a fixed order, so that sums are the same to the last bit however the work was spread. What is
    held are a window's height of rows, whatever the raster's height.

    Args:
        info: the model.
        rows, columns: where windows lie.
        blocks: columns [first, last) of blocks that are wanted.
    """

    def __init__(self, info: ModelInfo, rows: Axis, columns: Axis, blocks: tuple[int, int]) -> None:
        self._info, self._rows, self._columns, self._blocks = info, rows, columns, blocks
        cell = rows.cell
        self._cells, self._stride = rows.kernel // cell, rows.stride // cell
        along = torch.from_numpy(blend_weights(rows.kernel, cell))
        self._weights = along[:, None] * along
        self._class_of = None if info.class_of is None else torch.tensor(info.class_of)
        self._first = columns.windows_of(blocks[0])[0]  # the window that the band's cells start with
        self._width = (blocks[1] - 1 - self._first) * self._stride + self._cells
        self._row = -1  # the row of windows that the band's cells start with, after one more row of cells above
        self._sums: Tensor | None = None
        self._totals = torch.zeros(1 + self._cells, self._width)

    def move(self, row: int) -> None:
        """Go on to a row of windows; rows that are final by then are dropped."""
        if self._row < 0 or row == self._row:
            self._row = row
            return
        drop = min((row - self._row) * self._stride, 1 + self._cells)
        for kept in [self._totals] if self._sums is None else [self._totals, self._sums]:
            kept[..., : 1 + self._cells - drop, :] = kept[..., drop:, :].clone()
            kept[..., 1 + self._cells - drop :, :] = 0
        self._row = row

    def add(self, column: int, scores: Tensor) -> None:
        """Add the scores [Q, k, k] of a window of the current row."""
        if self._sums is None:
            self._sums = torch.zeros(len(scores), *self._totals.shape)
        left = (column - self._first) * self._stride
        place = (..., slice(1, 1 + self._cells), slice(left, left + self._cells))
        self._sums[place] += scores.float() * self._weights
        self._totals[place] += self._weights

    def results(self, with_scores: bool) -> Iterator[tuple[int, Result | None]]:
        """Yield (column, result) of the blocks that the current row of windows completes, from left to right.

        The result of a block that no window added to is ``None``.
        """
        rule, cell = self._info.rule, self._rows.cell
        top, bottom = self._rows.span(self._row)
        start = self._rows.start(self._row)
        height = self._totals.shape[0] if self._row == self._rows.count - 1 else 1 + self._stride
        # The row of cells above the band, where there is none: the first again, as at the border of any image.
        down = torch.arange(height).clamp(min=0 if self._row else 1)
        for block in range(*self._blocks):
            left, right = self._columns.span(block)
            first = (block - self._first) * self._stride - 1
            width = 1 + (self._cells if block == self._columns.count - 1 else self._stride)
            across = torch.arange(first, first + width).clamp(min=0)
            totals = self._totals[down[:, None], across]
            if self._sums is None or not totals.any():
                yield block, None
                continue
            sums = self._sums[:, down[:, None], across] / totals.clamp(min=_TINY)
            size = (height * cell, width * cell)
            labels, confidence = rule.label_map(sums, size, self._class_of)
            rows = slice(top - start + cell, bottom - start + cell)
            columns = slice(left - self._columns.start(block) + cell, right - self._columns.start(block) + cell)
            scores = None
            if with_scores:
                scores = as_bytes(rule.probabilities(enlarge(sums, size)[:, rows, columns], self._class_of))
            yield block, Result(labels[rows, columns].numpy(), as_bytes(confidence[rows, columns]), scores)


def as_bytes(probabilities: Tensor) -> np.ndarray:
    """Return probabilities as bytes, 0 to ``BYTE_SCALE``."""
    return (probabilities * BYTE_SCALE).round().clamp(0, BYTE_SCALE).to(torch.uint8).numpy()
