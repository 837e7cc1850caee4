"""Pieces of a map that are too small become part of their neighbours, in bands of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ovrs.raster.areas import band_rows
from ovrs.raster.ground import Ground

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

# Areas are summed up from pixels here and measured on outlines elsewhere, which differ by rounding.
ROUNDING = 1e-6

Band = tuple[int, int, "NDArray"]  # rows [top, bottom) and their labels


def number_pieces(labels: NDArray, nodata: int) -> tuple[NDArray, NDArray]:
    """Number the pieces of labels [h, w], which are connected by the sides of pixels.

    Returns:
        int32 [h, w], the number of the piece at every pixel (-1 for none), and the label of every piece.
    """
    numbers = np.full(labels.shape, -1, np.int32)
    kinds: list[NDArray] = []
    total = 0
    for label in np.unique(labels[labels != nodata]):
        count, found = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=4)
        inside = found > 0
        numbers[inside] = found[inside] - 1 + total
        kinds.append(np.full(count - 1, label))
        total += count - 1
    return numbers, np.concatenate(kinds) if kinds else np.empty(0, labels.dtype)


def read_bands(classes: DatasetReader) -> Iterator[Band]:
    """Yield the labels of a map in bands."""
    from rasterio.windows import Window

    for top, bottom in band_rows(*classes.shape):
        yield top, bottom, classes.read(1, window=Window(0, top, classes.width, bottom - top))


def sieved_bands(classes: DatasetReader, ground: Ground, min_area: float) -> Iterator[Band]:
    """Yield the labels of a map in bands, after pieces that are too small got the label of a neighbour.

    A small piece gets the label with which it has the longest border, counting pieces that are large enough. Pieces
    that touch small ones only come after them, from the outside to the inside. What touches no large piece at all, not
    even through others, keeps its label; so does a small piece that goes on below the band which follows its own.

    Args:
        classes: the map.
        ground: measures areas.
        min_area: of a piece that stays, in the unit of ``ground``.
    """
    bands = read_bands(classes)
    top, bottom, labels = next(bands)
    above = np.full_like(labels[:1], classes.nodata)  # the last row before, which is final
    for _, end, following in bands:
        window = np.concatenate([above, labels, following])
        split = 1 + bottom - top
        window = _sieved(window, split, top - 1, end < classes.height, int(classes.nodata), ground, min_area)
        yield top, bottom, window[1:split]
        above, labels, top, bottom = window[split - 1 : split], window[split:], bottom, end
    window = np.concatenate([above, labels])
    yield top, bottom, _sieved(window, len(window), top - 1, False, int(classes.nodata), ground, min_area)[1:]


def _sieved(
    labels: NDArray, core: int, top: int, goes_on: bool, nodata: int, ground: Ground, min_area: float
) -> NDArray:
    """Merge the small pieces of the rows 1 to ``core``.

    Args:
        labels: [h, w]; row 0 is final, rows from ``core`` on only show what lies around.
        core: see there.
        top: the map's row that row 0 is.
        goes_on: whether the map goes on below.
        nodata: label of pixels without one.
        ground: measures areas.
        min_area: see :func:`sieved_bands`.
    """
    numbers, kinds = number_pieces(labels, nodata)
    if not len(kinds):
        return labels
    sizes = np.empty(labels.shape)
    for rows, columns, area in ground.pixel_areas(top, top + len(labels), labels.shape[1]):
        sizes[rows, columns] = area
    inside = numbers >= 0
    small = np.bincount(numbers[inside], sizes[inside], len(kinds)) < min_area * (1 - ROUNDING)
    # What reaches the final row was settled with it. What reaches the end may be large.
    for edge in (numbers[0], *([numbers[-1]] if goes_on else [])):
        small[edge[edge >= 0]] = False
    ours = small & (np.bincount(numbers[:core][inside[:core]], minlength=len(kinds)) > 0)
    pieces, neighbours, lengths = _borders(numbers, small)
    settled = kinds.copy()
    while len(pieces):
        known = ~small[neighbours]
        # Sum the borders of every piece by label; the longest comes last, of equals that with the lowest label.
        keys, places = np.unique(pieces[known] * (nodata + 1) + settled[neighbours[known]], return_inverse=True)
        totals = np.bincount(places, lengths[known])
        piece, label = np.divmod(keys, nodata + 1)
        order = np.lexsort((-label, totals, piece))
        last = order[np.flatnonzero(np.diff(piece[order], append=-1))]
        settled[piece[last]] = label[last]
        small[piece[last]] = False
        left = small[pieces]
        if left.all():
            break
        pieces, neighbours, lengths = pieces[left], neighbours[left], lengths[left]
    changed = ours & (settled != kinds)
    here = inside & changed[numbers]
    labels = labels.copy()
    labels[here] = settled[numbers[here]]
    return labels


def _borders(numbers: NDArray, small: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Return the borders of small pieces: the piece, its neighbour, and how many sides of pixels they share."""
    sides = [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]
    keys = []
    for one, other in [*sides, *((other, one) for one, other in sides)]:
        touch = (one != other) & (one >= 0) & (other >= 0) & small[one]
        keys.append(one[touch].astype(np.int64) * len(small) + other[touch])
    keys, lengths = np.unique(np.concatenate(keys), return_counts=True)
    return *np.divmod(keys, len(small)), lengths
