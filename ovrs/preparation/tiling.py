"""Windows over large images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ovrs.data.card import DatasetCard
from ovrs.errors import DataError

EDGES = ("shift", "drop", "exact", "pad")


class Window(NamedTuple):
    """A rectangle in pixels: rows top..bottom-1, columns left..right-1. It may reach beyond the image."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class Tiling:
    """Windows on a grid.

    Attributes:
        size: side in pixels, or (height, width).
        stride: distance of neighbouring windows in pixels, or (down, across).
        edge: what happens where the grid does not meet the border. ``shift``: the last window moves inwards
            until it ends at the border. ``drop``: pixels behind the last full window are left out. ``exact``:
            that is an error. ``pad``: the last window reaches beyond the border. Images smaller than a
            window give none under ``drop``, an error under ``exact``, one that reaches beyond otherwise.
    """

    size: int | tuple[int, int]
    stride: int | tuple[int, int]
    edge: str

    @classmethod
    def of_card(cls, card: DatasetCard) -> Tiling:
        """Read ``source.tiling`` of a card.

        Raises:
            DataError: missing, or values that make no grid.
        """
        return cls.of_facts(card.source.get("tiling"), f"{card.path}: source.tiling")

    @classmethod
    def of_facts(cls, facts: Any, where: str) -> Tiling:
        """Read a mapping of size, stride and edge.

        Args:
            facts: the mapping; size and stride are numbers, or [height, width] and [down, across].
            where: file and key, for messages.

        Raises:
            DataError: no mapping, or values that make no grid.
        """
        if not isinstance(facts, dict):
            raise DataError(f"{where} is missing; give size, stride and edge.")
        size, stride, edge = (facts.get(key) for key in ("size", "stride", "edge"))
        fits = edge in EDGES
        for side, step in zip(_pair(size), _pair(stride), strict=True):
            fits = fits and type(side) is int and type(step) is int and 1 <= step <= side
        if not fits:
            raise DataError(
                f"{where} needs 1 <= stride <= size and an edge out of {', '.join(EDGES)}; "
                f"found size {size!r}, stride {stride!r}, edge {edge!r}."
            )
        return cls(_pair(size), _pair(stride), edge)

    def windows(self, height: int, width: int) -> list[Window]:
        """Return the windows over an image, row by row.

        Raises:
            ValueError: the edge rule is ``exact`` and the windows do not fill the image.
        """
        (tall, wide), (down, across) = _pair(self.size), _pair(self.stride)
        return [
            Window(top, top + tall, left, left + wide)
            for top in self._starts(height, tall, down)
            for left in self._starts(width, wide, across)
        ]

    def _starts(self, length: int, size: int, stride: int) -> list[int]:
        beyond = length - size
        if beyond < 0 and self.edge in ("shift", "pad"):
            return [0]
        starts = list(range(0, beyond + 1, stride))
        rest = beyond - starts[-1] if starts else beyond
        if rest and self.edge == "exact":
            raise ValueError(f"windows of {size} pixels, {stride} apart, do not fill {length} pixels")
        if rest and self.edge == "shift":
            starts.append(beyond)
        if rest and self.edge == "pad":
            starts.append(starts[-1] + stride)
        return starts


def _pair(value: Any) -> tuple[Any, Any]:
    """Return what is meant down and across."""
    return tuple(value) if isinstance(value, (list, tuple)) and len(value) == 2 else (value, value)
