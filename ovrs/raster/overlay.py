"""A picture of a map, for a first look without a geographic information system."""

from __future__ import annotations

from pathlib import Path

from ovrs.raster.mosaic import Layer
from ovrs.raster.opening import environment, opened, readable
from ovrs.raster.reading import as_colours
from ovrs.raster.scene import Scene
from ovrs.visualization import comparison_sheet, save_image

_SIDE = 1024  # pixels of the longer side of image and map on the picture, at most


def write_overlay(path: Path, scene: Scene, labels: Path, layer: Layer, title: str) -> None:
    """Draw raster and map side by side with a legend; large ones are reduced.

    Args:
        path: the picture.
        scene: how the raster is read.
        labels: the map.
        layer: names and colours of its values.
        title: a line on top.
    """
    import rasterio
    from rasterio.windows import Window

    top, bottom, left, right = scene.area
    height, width = bottom - top, right - left
    factor = max(height / _SIDE, width / _SIDE, 1)
    shape = (max(round(height / factor), 1), max(round(width / factor), 1))
    with opened(scene.path, scene.allow_remote) as dataset:
        window = Window(left, top, width, height)
        values = dataset.read(scene.bands, window=window, out_shape=(len(scene.bands), *shape))
    with environment(), readable(str(labels)), rasterio.open(labels) as dataset:
        found = dataset.read(1, out_shape=shape)
    picture = as_colours(scene, values).transpose(1, 2, 0)
    sheet = comparison_sheet(picture, None, found, layer.categories, layer.colours, title, ignore=layer.nodata)
    save_image(path, sheet)
