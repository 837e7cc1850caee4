"""Reading windows and the mask of valid pixels; nothing here depends on who reads or in which order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

from ovrs.data.rasters import to_bytes, turned
from ovrs.raster.grid import Axis
from ovrs.raster.opening import opened
from ovrs.raster.scene import Scene

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

# What windows show where there is no data: the mean colour of the images that towers learnt from, which is zero once
# an image is normalised.
EMPTY = np.array([124, 116, 104], np.uint8)


@dataclass(frozen=True)
class Block:
    """Neighbouring windows that are read together: of window row ``row``, columns ``first`` to ``last`` (exclusive)."""

    scene: Scene
    row: int
    first: int
    last: int


def read_block(block: Block) -> tuple[np.ndarray, tuple[int, ...]]:
    """Read the windows of a block that show data.

    Returns:
        uint8 [N, 3, kernel, kernel] RGB, and the column of each.

    Raises:
        DataError: the raster cannot be read there.
    """
    scene, rows, columns = block.scene, block.scene.rows, block.scene.columns
    kernel = rows.kernel
    starts = [columns.start(column) for column in range(block.first, block.last)]
    top, bottom = _clipped(rows, rows.start(block.row), rows.start(block.row) + kernel)
    left, right = _clipped(columns, starts[0], starts[-1] + kernel)
    with opened(scene.path, scene.allow_remote) as dataset:
        kept = list(range(block.first, block.last))
        shown = None
        if scene.masked or scene.aoi:
            # One cell more all around: what lies there is interpolated from this window's scores as well.
            above, below = _pixels(rows, rows.start(block.row) - rows.cell, rows.start(block.row) + kernel + rows.cell)
            before, after = _pixels(columns, starts[0] - columns.cell, starts[-1] + kernel + columns.cell)
            place = (above, below, before, after)
            valid = valid_pixels(scene, dataset, *place)
            wanted = valid & wanted_pixels(scene, dataset, *place)
            kept = []
            for column, start in zip(range(block.first, block.last), starts, strict=True):
                near = slice(*_pixels(columns, start - columns.cell, start + kernel + columns.cell))
                if wanted[:, near.start - before : near.stop - before].any():
                    kept.append(column)
            shown = valid[rows.pixels_of(top, bottom) - above][:, columns.pixels_of(left, right) - before]
        if not kept:
            return np.empty((0, 3, kernel, kernel), np.uint8), ()
        picture = _read_colours(scene, dataset, top, bottom, left, right)
    if shown is not None:
        picture[:, ~shown] = EMPTY[:, None]
    windows = np.empty((len(kept), 3, kernel, kernel), np.uint8)
    for window, column in zip(windows, kept, strict=True):
        pixels = _window(picture, rows.start(block.row) - top, columns.start(column) - left, kernel)
        window[:] = turned(pixels.transpose(1, 2, 0), scene.orientation).transpose(2, 0, 1)
    return windows, tuple(kept)


def valid_pixels(scene: Scene, dataset: DatasetReader, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Return which raster pixels have data, bool [bottom - top, right - left]."""
    from rasterio.windows import Window

    if not scene.masked:
        return np.ones((bottom - top, right - left), bool)
    window = Window(left, top, right - left, bottom - top)
    valid = dataset.dataset_mask(window=window) > 0
    if np.issubdtype(np.dtype(dataset.dtypes[scene.bands[0] - 1]), np.floating):
        valid &= np.isfinite(dataset.read(scene.bands, window=window)).all(axis=0)
    return valid


def wanted_pixels(scene: Scene, dataset: DatasetReader, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Return which raster pixels lie in the area of interest, bool [bottom - top, right - left]."""
    from rasterio.features import geometry_mask

    shape = (bottom - top, right - left)
    if not scene.aoi:
        return np.ones(shape, bool)
    return geometry_mask(scene.aoi, shape, dataset.transform * Affine.translation(left, top), invert=True)


def _read_colours(scene: Scene, dataset: DatasetReader, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Read canvas pixels as uint8 [3, h, w] RGB."""
    from rasterio.enums import Resampling

    resampling = Resampling.average if scene.rows.scale * scene.columns.scale > 1 else Resampling.bilinear
    values = dataset.read(
        scene.bands,
        window=_source(scene, top, bottom, left, right),
        out_shape=(len(scene.bands), bottom - top, right - left),
        resampling=resampling if scene.lookup is None else Resampling.nearest,
    )
    return as_colours(scene, values)


def as_colours(scene: Scene, values: np.ndarray) -> np.ndarray:
    """Return what the model sees of a raster's values [bands, h, w]: uint8 [3, h, w] RGB."""
    if scene.lookup is not None:
        return np.ascontiguousarray(scene.lookup[values[0]].transpose(2, 0, 1))
    if scene.low:
        low, high = (np.array(limit)[:, None, None] for limit in (scene.low, scene.high))
        values = to_bytes(values, low, high)
    return np.repeat(values, 3, axis=0) if len(values) == 1 else values


def _source(scene: Scene, top: int, bottom: int, left: int, right: int) -> Window:
    """Return the place of canvas pixels in the raster; in broken pixels where the two differ in size."""
    from rasterio.windows import Window

    rows, columns = scene.rows, scene.columns
    y = np.clip([top * rows.scale - rows.shift, bottom * rows.scale - rows.shift], 0, rows.pixels)
    x = np.clip([left * columns.scale - columns.shift, right * columns.scale - columns.shift], 0, columns.pixels)
    return Window(x[0], y[0], x[1] - x[0], y[1] - y[0])


def _clipped(axis: Axis, first: int, last: int) -> tuple[int, int]:
    return max(first, 0), min(last, axis.size)


def _pixels(axis: Axis, first: int, last: int) -> tuple[int, int]:
    """Return the raster pixels [first, last) that canvas pixels touch."""
    first, last = _clipped(axis, first, last)
    return (
        max(math.floor(first * axis.scale - axis.shift), 0),
        min(math.ceil(last * axis.scale - axis.shift), axis.pixels),
    )


def _window(picture: np.ndarray, top: int, left: int, kernel: int) -> np.ndarray:
    """Cut out a window; where it sticks out of the raster it is mirrored."""
    height, width = picture.shape[1:]
    inside = picture[:, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
    around = ((0, 0), (max(-top, 0), max(top + kernel - height, 0)), (max(-left, 0), max(left + kernel - width, 0)))
    return np.pad(inside, around, mode="symmetric") if inside.shape[1:] != (kernel, kernel) else inside
