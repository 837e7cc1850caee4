"""Where windows lie: on a grid that is anchored in map coordinates.

A raster and any cut of it see the same windows away from their own borders, whatever part of the map they show.

Two lattices are used along each side of a raster. *Pixels* are the raster's own. *Canvas* pixels are what the model
sees: the same, or larger or smaller by a factor where the raster is resampled to another ground size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine

# Where the fraction of an origin's pixel number changes its whole number. Origins lie on whole pixels, halves, thirds
# or quarters; none is near this, so that the last bit of a coordinate cannot move a raster by a pixel.
_FRACTION = 0.38


@dataclass(frozen=True)
class Axis:
    """The windows along one side of a raster.

    Attributes:
        pixels: length of the side in the raster's own pixels.
        kernel: side of a window in canvas pixels.
        stride: distance of neighbouring windows in canvas pixels.
        cell: canvas pixels per score that the model gives; divides ``kernel`` and ``stride``.
        phase: canvas pixels between the first window's start and the raster's first pixel, 0 to ``stride - 1``.
        scale: raster pixels per canvas pixel.
        shift: raster pixels between the first canvas pixel's start and the raster's first pixel.
        size: length of the side in canvas pixels.
    """

    pixels: int
    kernel: int
    stride: int
    cell: int
    phase: int
    scale: float
    shift: float
    size: int

    @classmethod
    def anchored(cls, pixels: int, origin: float, kernel: int, stride: int, cell: int, scale: float = 1.0) -> Axis:
        """Lay windows over a side.

        Args:
            pixels: length of the side in raster pixels.
            origin: number of its first pixel on the lattice of raster pixels through the map's origin; may be broken.
            kernel: side of a window in canvas pixels.
            stride: distance of neighbouring windows in canvas pixels.
            cell: canvas pixels per score.
            scale: raster pixels per canvas pixel.
        """
        if scale == 1.0:
            first, size, shift = math.floor(origin + _FRACTION), pixels, 0.0
        else:
            first = math.ceil(origin / scale - 1e-6)  # whole canvas pixels inside the raster, but for rounding
            size = math.floor((origin + pixels) / scale + 1e-6) - first
            if size < 1:
                first, size = math.floor(origin / scale), 1
            shift = origin - first * scale
        return cls(pixels, kernel, stride, cell, first % stride, scale, shift, size)

    @property
    def count(self) -> int:
        """Windows that are needed to cover the side, and blocks of results; the outer windows may stick out."""
        return max(-(-(self.size + self.phase - self.kernel) // self.stride), 0) + 1

    @property
    def reach(self) -> int:
        """How many windows before the one that starts a block still add to it."""
        return -(-(self.kernel + self.cell) // self.stride) - 1

    @property
    def _lead(self) -> int:
        """A block starts so much before its window: what is interpolated there needs the window's first scores."""
        return self.cell // 2

    def start(self, index: int) -> int:
        """Return the first canvas pixel of a window (or of where it would be); may be negative."""
        return index * self.stride - self.phase

    def span(self, block: int) -> tuple[int, int]:
        """Return the canvas pixels [first, last) whose result is final once window ``block`` was added."""
        first = self.start(block) - self._lead
        last = self.size if block == self.count - 1 else first + self.stride
        return max(first, 0), max(last, 0)

    def own(self, block: int) -> tuple[int, int]:
        """Return the raster pixels [first, last) whose centres lie in a block; blocks share none and miss none."""
        first, last = self.span(block)
        return self._pixel(first), self._pixel(last)

    def canvas_of(self, first: int, last: int) -> np.ndarray:
        """[last - first] canvas pixel that holds the centre of each of the raster's pixels ``first`` to ``last``."""
        centres = (np.arange(first, last) + 0.5 + self.shift) / self.scale
        return np.clip(np.floor(centres).astype(np.int64), 0, self.size - 1)

    def pixels_of(self, first: int, last: int) -> np.ndarray:
        """[last - first] raster pixel that holds the centre of each of the canvas pixels ``first`` to ``last``."""
        centres = (np.arange(first, last) + 0.5) * self.scale - self.shift
        return np.clip(np.floor(centres).astype(np.int64), 0, self.pixels - 1)

    def _pixel(self, canvas: int) -> int:
        """Return the first raster pixel whose canvas pixel is ``canvas`` or more."""
        if canvas in (0, self.size):
            return 0 if canvas == 0 else self.pixels
        near = round(canvas * self.scale - self.shift) - 2
        found = near + int((self.canvas_of(near, near + 4) < canvas).sum())
        return min(max(found, 0), self.pixels)

    def windows_of(self, block: int) -> range:
        """Return the windows that add to a block."""
        return range(max(block - self.reach, 0), block + 1)


def blend_weights(kernel: int, cell: int) -> np.ndarray:
    """Return how much each score of a window counts along one side: a Hann window, positive everywhere.

    Returns:
        float32 [kernel / cell].
    """
    count = kernel // cell
    return (np.sin(np.pi * (np.arange(count) + 0.5) / count) ** 2).astype(np.float32)


def origin_pixels(transform: Affine) -> tuple[float, float]:
    """Return the (row, column) number of a raster's first pixel on the lattice of its pixels through the map's origin.

    Works for rotated and mirrored transforms as well. A raster without a transform starts at (0, 0).
    """
    linear = Affine(transform.a, transform.b, 0.0, transform.d, transform.e, 0.0)
    column, row = ~linear * (transform.c, transform.f)
    return row, column
