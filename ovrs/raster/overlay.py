"""Pictures of maps, for a look without a geographic information system."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ovrs.errors import DataError, shortened
from ovrs.raster.mosaic import Layer
from ovrs.raster.opening import environment, opened, readable
from ovrs.raster.reading import as_colours
from ovrs.raster.scene import Scene
from ovrs.visualization import Picture, comparison_sheet, legend, overlay, read_qml, save_image

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_SIDE = 1024  # pixels of the longer side of image and map on the picture, at most
_NARROWEST = 240  # pixels of a picture with a legend


def write_overlay(path: Path, scene: Scene, labels: Path, layer: Layer, title: str) -> None:
    """Draw raster and map side by side with a legend; large ones are reduced.

    Args:
        path: the picture.
        scene: how the raster is read.
        labels: the map.
        layer: names and colours of its values.
        title: a line on top.
    """
    from rasterio.windows import Window

    top, bottom, left, right = scene.area
    height, width = bottom - top, right - left
    shape = _reduced(height, width)
    with opened(scene.path, scene.allow_remote) as dataset:
        window = Window(left, top, width, height)
        values = dataset.read(scene.bands, window=window, out_shape=(len(scene.bands), *shape))
    with _map(labels) as dataset:
        found = dataset.read(1, out_shape=shape)
    picture = as_colours(scene, values).transpose(1, 2, 0)
    sheet = comparison_sheet(picture, None, found, layer.categories, layer.colours, title, ignore=layer.nodata)
    save_image(path, sheet)


def draw_styled(labels: Path) -> Picture:
    """Draw a map in the colours of the ``.qml`` beside it, as QGIS shows it, with a legend below; without data white.

    Args:
        labels: ``STEM_labels.tif``, see :func:`ovrs.raster.map_rasters`.

    Raises:
        DataError: a file cannot be read, or the style and the map's own colours and names differ.
    """
    names, colours = read_qml(labels.with_suffix(".qml"))
    with _map(labels) as dataset:
        try:
            table = [dataset.colormap(1).get(value, ())[:3] for value in range(len(names))]
        except ValueError:  # rasterio's way to say that there is none
            table = []
        if table != [tuple(colour) for colour in colours.tolist()]:
            raise DataError(f"the colours of {labels} differ from its style's; make the map again.")
        if (own := json.loads(dataset.tags().get("OVRS_CLASSES", "[]"))) != list(names):
            raise DataError(f"{labels} names the classes {shortened(own)}, its style {shortened(names)}.")
        shape, nodata = _reduced(*dataset.shape), int(dataset.nodata)
        found = dataset.read(1, out_shape=shape)
    picture = overlay(np.full((*shape, 3), 255, np.uint8), found, colours, alpha=1.0, ignore=nodata)
    counted = found[found != nodata]
    shares = {int(value): float((counted == value).mean()) for value in np.unique(counted)}
    width = max(shape[1], _NARROWEST)
    picture = np.pad(picture, ((0, 0), (0, width - shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([picture, legend(names, colours, width, shares)])


@contextmanager
def _map(path: Path) -> Iterator[DatasetReader]:
    import rasterio

    with environment(), readable(str(path)), rasterio.open(path) as dataset:
        yield dataset


def _reduced(height: int, width: int) -> tuple[int, int]:
    factor = max(height / _SIDE, width / _SIDE, 1)
    return max(round(height / factor), 1), max(round(width / factor), 1)
