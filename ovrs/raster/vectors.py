"""Polygons of the classes of a map, made band by band: polygons that cross bands come out whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine

from ovrs.raster.blend import BYTE_SCALE
from ovrs.raster.ground import Ground
from ovrs.raster.opening import environment, readable
from ovrs.raster.sieve import ROUNDING, Band, number_pieces, read_bands, sieved_bands
from ovrs.raster.vector_files import Features, open_writer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader


@dataclass
class _Polygon:
    """A polygon, or what is known of it so far: class, pixels, sum of confidence, and pieces in pixel coordinates."""

    label: int
    pixels: int
    confidence: float
    pieces: list[shapely.Polygon]

    def join(self, other: _Polygon) -> None:
        self.pixels += other.pixels
        self.confidence += other.confidence
        self.pieces += other.pieces

    def whole(self) -> shapely.Polygon:
        """Return the polygon; coordinates are whole numbers, so that this is exact."""
        # Simplifying by nothing takes out the corners on straight sides that seams leave.
        return shapely.simplify(shapely.union_all(self.pieces), 0)


def write_vectors(
    path: Path,
    labels: Path,
    confidence: Path,
    names: Sequence[str],
    ground: Ground,
    min_area: float = 0.0,
    simplify: float = 0.0,
) -> None:
    """Write the polygons of a map: connected pixels (by their sides) of one class.

    Args:
        path: the file; its ending chooses the format.
        labels: the map.
        confidence: the winner's probability as bytes.
        names: the classes.
        ground: measures areas.
        min_area: smaller polygons become part of a neighbour (see :func:`ovrs.raster.sieve.sieved_bands`), or are left
            out where they have none; in square metres, or pixels where there is no CRS.
        simplify: how far outlines may be straightened, in pixels: about the root of the largest area that a corner
            which goes may cut off. Neighbours keep their common border. Corners on the seams of bands stay.

    Raises:
        DataError: a file cannot be read or written.
    """
    import rasterio

    with (
        environment(),
        readable(str(path)),
        rasterio.open(labels) as classes,
        rasterio.open(confidence) as sure,
        open_writer(path, ground) as write,
    ):
        bands = sieved_bands(classes, ground, min_area) if min_area else None
        for polygons in trace(classes, sure, simplify, bands):
            shapes = shapely.transform(
                np.array([polygon.whole() for polygon in polygons]),
                lambda points: np.column_stack(ground.transform * points.T),
            )
            areas = shapely.area(shapely.transform(shapes, ground.flat)) * ground.factor
            kept = np.flatnonzero(areas >= min_area * (1 - ROUNDING))
            if not len(kept):
                continue
            write(
                Features(
                    shapes=shapes[kept],
                    names=np.array([names[polygons[i].label] for i in kept], dtype=object),
                    labels=np.array([polygons[i].label for i in kept], dtype=np.int32),
                    areas=areas[kept],
                    confidence=np.array([polygons[i].confidence / polygons[i].pixels for i in kept]),
                )
            )


def trace(
    classes: DatasetReader, sure: DatasetReader, simplify: float = 0.0, bands: Iterable[Band] | None = None
) -> Iterator[list[_Polygon]]:
    """Yield polygons, in pixel coordinates and whole, as soon as no later band can add to them.

    Args:
        classes: the map.
        sure: the winner's probability as bytes.
        simplify: see :func:`write_vectors`.
        bands: of labels, instead of the map's own.
    """
    from rasterio.windows import Window

    waiting: list[_Polygon] = []  # polygons that reached the last row of the band before
    above = np.full(classes.width, -1)  # which of them, at every pixel of that row
    above_labels = np.full(classes.width, classes.nodata)
    for top, bottom, labels in read_bands(classes) if bands is None else bands:
        window = Window(0, top, classes.width, bottom - top)
        numbers, pieces = _pieces(labels, sure.read(1, window=window), int(classes.nodata), top, simplify)
        numbers[numbers >= 0] += len(waiting)
        polygons = waiting + pieces
        same = (above >= 0) & (above_labels == labels[0])
        root = _roots(len(polygons), np.unique(np.stack([above[same], numbers[0][same]]), axis=1))
        for number, polygon in enumerate(polygons):
            if root[number] != number:
                polygons[root[number]].join(polygon)
        last = numbers[-1]
        goes_on = np.unique(root[last[last >= 0]]) if bottom < classes.height else np.empty(0, np.int64)
        if len(finished := np.setdiff1d(root, goes_on)):
            yield [polygons[number] for number in finished]
        waiting = [polygons[number] for number in goes_on]
        above = (
            np.where(last >= 0, np.searchsorted(goes_on, root[last]), -1) if len(goes_on) else np.full_like(above, -1)
        )
        above_labels = labels[-1]


def _pieces(
    labels: NDArray, confidence: NDArray, nodata: int, top: int, simplify: float
) -> tuple[NDArray, list[_Polygon]]:
    """Return the number of the connected piece at every pixel of a band (-1 for none), and the pieces."""
    numbers, kinds = number_pieces(labels, nodata)
    inside = numbers >= 0
    pixels = np.bincount(numbers[inside], minlength=len(kinds))
    sums = np.bincount(numbers[inside], confidence[inside], minlength=len(kinds)) / BYTE_SCALE
    outlines = _outlines(numbers, top)
    if simplify and len(outlines):
        # Neighbours share a border where they have the same corners along it: all pixels' corners. The border of the
        # band stays, so that pieces still fit those of the next band.
        outlines = shapely.transform(shapely.segmentize(outlines, 1.0), np.rint)
        outlines = shapely.coverage_simplify(outlines, simplify, simplify_boundary=False)
    return numbers, [
        _Polygon(int(label), int(count), float(total), [outline])
        for label, count, total, outline in zip(kinds, pixels, sums, outlines, strict=True)
    ]


def _outlines(numbers: NDArray, top: int) -> NDArray:
    """Return the polygon of every piece."""
    from rasterio.features import shapes

    points: list[tuple[float, float]] = []
    lengths, owners = [], []
    for geometry, number in shapes(numbers, numbers >= 0, connectivity=4, transform=Affine.translation(0, top)):
        for ring in geometry["coordinates"]:  # the outer one first
            points += ring
            lengths.append(len(ring))
            owners.append(int(number))
    if not points:
        return np.empty(0, object)
    rings = shapely.linearrings(np.array(points), indices=np.repeat(np.arange(len(lengths)), lengths))
    order = np.argsort(owners, kind="stable")
    return shapely.polygons(rings[order], indices=np.array(owners)[order])


def _roots(count: int, pairs: NDArray) -> NDArray:
    """Return the least member of everyone's group, given which pairs belong together."""
    root = list(range(count))

    def find(member: int) -> int:
        while root[member] != member:
            root[member] = root[root[member]]
            member = root[member]
        return member

    for one, other in pairs.T.tolist():
        low, high = sorted((find(one), find(other)))
        root[high] = low
    return np.array([find(member) for member in range(count)], np.int64)
