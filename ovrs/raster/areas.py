"""How much of a map every class covers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovrs.files import replacing
from ovrs.raster.ground import Ground
from ovrs.raster.opening import environment, readable

BAND_PIXELS = 1 << 22  # of a map that are looked at together


@dataclass(frozen=True)
class ClassArea:
    """The cover of a class: its pixels, its share of all pixels with data, its area (see :class:`Ground`)."""

    name: str
    pixels: int
    share: float
    area: float


def band_rows(height: int, width: int) -> list[tuple[int, int]]:
    """Return the rows [top, bottom) of the bands that a map is looked at in."""
    rows = max(BAND_PIXELS // width, 64)
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def class_areas(path: Path, names: Sequence[str], ground: Ground) -> list[ClassArea]:
    """Add up pixels and areas of the classes of a map of labels.

    Raises:
        DataError: the map cannot be read to its end.
    """
    import rasterio
    from rasterio.windows import Window

    pixels, areas = np.zeros(len(names), np.int64), np.zeros(len(names))
    with environment(), readable(str(path)), rasterio.open(path) as dataset:
        for top, bottom in band_rows(*dataset.shape):
            labels = dataset.read(1, window=Window(0, top, dataset.width, bottom - top))
            for rows, columns, area in ground.pixel_areas(top, bottom, dataset.width):
                counts = np.bincount(labels[rows, columns].ravel(), minlength=len(names))[: len(names)]
                pixels += counts
                areas += counts * area
    total = max(int(pixels.sum()), 1)
    return [
        ClassArea(name, int(count), int(count) / total, float(area))
        for name, count, area in zip(names, pixels, areas, strict=True)
    ]


def write_areas(path: Path, areas: Sequence[ClassArea], ground: Ground) -> None:
    """Write a CSV with a row per class."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["class", "pixels", "share", ground.field, "measured"])
        for area in areas:
            writer.writerow([area.name, area.pixels, f"{area.share:.6f}", f"{area.area:.3f}", ground.kind])
