"""Which view of an image is shown, and where a pixel of the image lies in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ovrs.inference.views import Plan


@dataclass(frozen=True)
class View:
    """One of the views into which a plan cuts an image: the whole of it, or a window.

    Attributes:
        pixels: [3, H, W] normalised, as the towers get them.
        inside: (top, bottom, left, right), the pixels of the view that show the image; the rest is padding.
        point: (row, column) in the view of the pixel that was asked for.
    """

    pixels: Tensor
    inside: tuple[int, int, int, int]
    point: tuple[int, int]

    def cell(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Return in which cell of a grid over the view the point lies."""
        height, width = self.pixels.shape[-2:]
        return self.point[0] * grid[0] // height, self.point[1] * grid[1] // width


def widest_view(plan: Plan, image: Tensor, point: tuple[float, float] | None = None) -> View:
    """Return the view that shows most of an image and, where several do, has the point nearest its centre.

    Of a plan with a view of the whole image this is that one; otherwise the window around the point.

    Args:
        plan: of the model.
        image: [3, h, w] normalised.
        point: (x, y), a pixel of the image or a place between pixels; ``None`` for the middle.
    """
    height, width = image.shape[-2:]
    x, y = point or ((width - 1) / 2, (height - 1) / 2)
    # An image of places goes through the same plan, and so says where every pixel of a view comes from.
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows, torch.ones(height, width)])
    views = (
        _view(pixels, where, (x, y), height * width)
        for (_, images), (_, places_of) in zip(plan.views([image]), plan.views([places]), strict=True)
        for pixels, where in zip(images, places_of, strict=True)
    )
    return max(views, key=lambda found: found[0])[1]


def _view(pixels: Tensor, places: Tensor, point: tuple[float, float], area: int) -> tuple[tuple[float, float], View]:
    """Return a view, and before it how good it is: the share of the image (-1 without the point), then its centring."""
    known = places[2] > 0.5
    down, across = known.any(dim=1).nonzero().flatten(), known.any(dim=0).nonzero().flatten()
    top, bottom, left, right = int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1
    x, y = places[0, top, left:right], places[1, top:bottom, left]  # places grow along one axis each
    column, row = (int((line - at).abs().argmin()) for line, at in zip((x, y), point, strict=True))
    steps = [float(line[-1] - line[0]) / max(len(line) - 1, 1) for line in (x, y)]
    holds = all(
        abs(float(line[at]) - wanted) <= step
        for line, at, wanted, step in zip((x, y), (column, row), point, steps, strict=True)
    )
    # Roughly: at the edges of a resized image places bend, and windows there would seem to show a little less.
    shown = round(len(x) * steps[0] * len(y) * steps[1] / area, 1) if holds else -1.0
    distance = (row - len(y) / 2) ** 2 + (column - len(x) / 2) ** 2
    return (shown, -distance), View(pixels, (top, bottom, left, right), (top + row, left + column))
