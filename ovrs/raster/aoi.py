"""The part of a raster that is mapped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovrs.errors import DataError
from ovrs.raster.options import require

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Geometry = dict[str, Any]

_ROUNDING = 1e-3  # of a pixel, that coordinates may be off after a change of the CRS


def area_of_interest(
    dataset: DatasetReader, aoi: str | Path | tuple[float, float, float, float] | None
) -> tuple[tuple[int, int, int, int], tuple[Geometry, ...]]:
    """Return the raster pixels (top, bottom, left, right) that an area touches, and its polygons in the raster's CRS.

    Args:
        dataset: the raster.
        aoi: ``None`` for all of it; bounds in its CRS; or a polygon file.

    Raises:
        DataError: the area lies outside of the raster, or its file cannot be used.
    """
    height, width = dataset.shape
    if aoi is None:
        return (0, height, 0, width), ()
    if isinstance(aoi, tuple):
        left, bottom, right, top = aoi
        ring = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
        geometries: tuple[Geometry, ...] = ({"type": "Polygon", "coordinates": (ring,)},)
    else:
        geometries = _from_file(str(aoi), dataset)
    points = np.array([point[:2] for geometry in geometries for point in _points(geometry["coordinates"])])
    columns, rows = ~dataset.transform * points.T
    area = (
        max(math.floor(rows.min() + _ROUNDING), 0),
        min(math.ceil(rows.max() - _ROUNDING), height),
        max(math.floor(columns.min() + _ROUNDING), 0),
        min(math.ceil(columns.max() - _ROUNDING), width),
    )
    if area[0] >= area[1] or area[2] >= area[3]:
        raise DataError(
            f"the area of interest {aoi} lies outside of {dataset.name}, whose bounds are {dataset.bounds}."
        )
    return area, geometries


def _from_file(path: str, dataset: DatasetReader) -> tuple[Geometry, ...]:
    from rasterio.warp import transform_geom

    require(f"--aoi {path}", "pyogrio", "shapely", extra="vector")
    import pyogrio
    import shapely

    if not Path(path).is_file():
        raise DataError(f"the area of interest {path} does not exist.")
    try:
        meta, _, wkb, _ = pyogrio.raw.read(path, columns=[])
    except pyogrio.errors.DataSourceError as error:
        raise DataError(f"the area of interest {path} cannot be read ({error}).") from None
    shapes = [shape for shape in shapely.from_wkb(wkb) if shape is not None and shape.area > 0]
    if not shapes:
        raise DataError(f"the area of interest {path} holds no polygon.")
    geometries = [shapely.geometry.mapping(shape) for shape in shapes]
    if dataset.crs is not None and meta["crs"]:
        geometries = [transform_geom(meta["crs"], dataset.crs, geometry) for geometry in geometries]
    return tuple(geometries)


def _points(coordinates: Any) -> list[tuple[float, ...]]:
    if isinstance(coordinates[0], (int, float)):
        return [coordinates]
    return [point for part in coordinates for point in _points(part)]
