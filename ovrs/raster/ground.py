"""Sizes on the ground: of a raster's pixels, of its classes, of polygons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

if TYPE_CHECKING:
    from rasterio.crs import CRS

_EQUATOR = 6378137.0  # metres, WGS 84
_ECCENTRICITY2 = 0.00669437999014  # squared, WGS 84
_BLOCK = 256  # pixels that share one pixel area: its change over so many is far below a millionth


def ground_sizes(transform: Affine, crs: CRS | None, height: int, width: int) -> tuple[float, float] | None:
    """Return the (height, width) of a pixel in metres, in a raster's middle; ``None`` where they are unknown."""
    if crs is None or transform.is_identity:
        return None
    if crs.is_geographic:
        _, latitude = transform * (width / 2, height / 2)
        flattened = 1 - _ECCENTRICITY2 * math.sin(math.radians(latitude)) ** 2
        east = math.radians(1) * _EQUATOR / math.sqrt(flattened) * math.cos(math.radians(latitude))
        north = math.radians(1) * _EQUATOR * (1 - _ECCENTRICITY2) / flattened**1.5
    else:
        try:
            east = north = crs.linear_units_factor[1]
        except ValueError:  # rasterio.errors.CRSError, of a CRS without units
            return None
    return (
        math.hypot(transform.b * east, transform.e * north),
        math.hypot(transform.a * east, transform.d * north),
    )


def is_located(crs: CRS | None) -> bool:
    """Return whether a CRS says where on the earth coordinates are; local and half-read ones do not."""
    return crs is not None and (crs.is_geographic or crs.is_projected)


class Ground:
    """Areas in square metres of what a raster shows.

    They are areas on the ellipsoid, measured in an equal-area projection: the cylindrical one for geographic
    coordinates, where pixels stay rectangles, and the azimuthal one around the raster's middle otherwise.

    Attributes:
        crs: of the map coordinates; ``None`` where they are pixels.
        transform: from pixels to map coordinates.
        kind: how areas are measured: ``ellipsoid``, ``projected`` or ``pixels``.
        field: the name of an area in tables.

    Args:
        transform: of the raster.
        crs: of the raster; without one that is located, areas are in square pixels.
        height, width: of the raster in pixels.
        planar: areas in the plane of the CRS instead, unless it is in degrees.
    """

    def __init__(self, transform: Affine, crs: CRS | None, height: int, width: int, planar: bool = False) -> None:
        from rasterio.crs import CRS as RasterCRS
        from rasterio.warp import transform as reproject

        self.crs = crs if is_located(crs) else None
        self._target, self._reproject = None, reproject
        self.transform = transform
        self._factor = 1.0
        if self.crs is None:
            self.kind, self.field, self.transform = "pixels", "area_px", Affine.identity()
        elif planar and crs.is_projected:
            self.kind, self.field = "projected", "area_m2"
            self._factor = crs.linear_units_factor[1] ** 2
        else:
            self.kind, self.field = "ellipsoid", "area_m2"
            middle = transform * (width / 2, height / 2)
            (longitude,), (latitude,) = reproject(crs, "EPSG:4326", [middle[0]], [middle[1]])
            projection = "cea" if crs.is_geographic else f"laea +lat_0={latitude}"
            self._target = RasterCRS.from_string(f"+proj={projection} +lon_0={longitude} +datum=WGS84 +units=m")

    def flat(self, coordinates: np.ndarray) -> np.ndarray:
        """Return map coordinates [N, 2] in a plane where areas are right but for :attr:`factor`."""
        if self._target is None or not len(coordinates):
            return coordinates
        columns = self._reproject(self.crs, self._target, *coordinates.T.tolist())
        return np.column_stack(columns)

    @property
    def factor(self) -> float:
        """Square metres per unit of area in the plane of :meth:`flat`."""
        return self._factor

    def pixel_areas(self, top: int, bottom: int, width: int) -> Iterator[tuple[slice, slice, float]]:
        """Yield (rows, columns, area of one pixel) of blocks that tile the rows ``top`` to ``bottom``.

        The rows count from ``top``; the areas of all pixels add up to that of the blocks' outlines.
        """
        rows = np.array([*range(top, bottom, _BLOCK), bottom])
        columns = np.array([*range(0, width, _BLOCK), width])
        x, y = np.meshgrid(columns, rows)
        points = np.column_stack(self.transform * (x.ravel().astype(float), y.ravel().astype(float)))
        x, y = self.flat(points).T.reshape(2, len(rows), len(columns))
        # Twice the area of a quadrangle is the cross product of its diagonals.
        across = (x[1:, 1:] - x[:-1, :-1], y[1:, 1:] - y[:-1, :-1])
        back = (x[1:, :-1] - x[:-1, 1:], y[1:, :-1] - y[:-1, 1:])
        areas = np.abs(across[0] * back[1] - across[1] * back[0]) / 2 * self.factor
        for i in range(len(rows) - 1):
            for j in range(len(columns) - 1):
                pixels = (rows[i + 1] - rows[i]) * (columns[j + 1] - columns[j])
                yield (
                    slice(rows[i] - top, rows[i + 1] - top),
                    slice(columns[j], columns[j + 1]),
                    float(areas[i, j] / pixels),
                )
