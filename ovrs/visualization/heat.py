"""Numbers as colours: heat maps, their scale, features by principal components, matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from ovrs.visualization.fonts import draw_text, font
from ovrs.visualization.pictures import BACKGROUND, Picture

_FONT_SIZE = 13
_CELL, _NARROW_CELL = 50, 26  # side of a matrix's cell with and without its number
_MOST_NUMBERS = 14  # columns up to which cells show their numbers
_PAD = 6
_DARK = 380  # sum of red, green and blue below which text on a colour is white
_DIM = 0.45  # of an image beneath a heat map, where the map says nothing
_CUT = 1.0  # per cent of the values on either side that principal components saturate


@dataclass(frozen=True)
class Scale:
    """What the colours of a heat map stand for: ``low`` is dark, ``high`` bright."""

    low: float
    high: float

    @classmethod
    def of(cls, *values: ArrayLike) -> Scale:
        """Return the range of finite values; a range of no width is widened, so that it has a middle."""
        flat = np.concatenate([np.ravel(value) for value in values]).astype(np.float64)
        flat = flat[np.isfinite(flat)]
        low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.0, 1.0)
        return cls(low, high) if high > low else cls(low - 0.5, high + 0.5)

    def text(self, value: float) -> str:
        """Return a value with the decimals that tell a hundredth of the range, four at most."""
        return f"{value:.{min(max(2 - math.floor(math.log10(self.high - self.low)), 0), 4)}f}"


def heat(values: ArrayLike, scale: Scale) -> Picture:
    """Colour numbers, dark violet to bright yellow; those that are not finite become white.

    Args:
        values: [h, w].
        scale: the range; what lies outside takes the colour of its end.

    Returns:
        [h, w, 3] uint8 RGB.
    """
    values = np.asarray(values, np.float64)
    share = np.nan_to_num((values - scale.low) / (scale.high - scale.low), nan=0.0, posinf=1.0, neginf=0.0)
    steps = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
    coloured = cv2.cvtColor(cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    coloured[~np.isfinite(values)] = BACKGROUND
    return coloured


def heat_overlay(image: Picture, values: ArrayLike, scale: Scale) -> Picture:
    """Lay a heat map over an image that is dimmed where the value is 0.

    Args:
        image: [H, W, 3] uint8 RGB.
        values: [H, W], not negative.
        scale: the range of the colours.
    """
    values = np.asarray(values, np.float64)
    dimmed = np.rint(_DIM * image).astype(np.uint8)
    mixed = cv2.addWeighted(image, 0.3, heat(values, scale), 0.7, 0)
    return np.where(values[..., None] > 0, mixed, dimmed)


def principal_colours(features: ArrayLike) -> Picture:
    """Colour features by their first three principal components as red, green and blue.

    Cells of like colour have like features. Components have signs of no meaning: here the sum of cubes is positive, so
    the same features always get the same colours.

    Args:
        features: [C, ...], for example [C, h, w]; all cells share the components.

    Returns:
        [..., 3] uint8 RGB.
    """
    features = np.asarray(features, np.float32)
    cells = features.reshape(len(features), -1).T.astype(np.float64)
    centred = cells - cells.mean(axis=0)
    # The largest last; of C x C, since there may be many more cells than channels.
    _, vectors = np.linalg.eigh(centred.T @ centred)
    projected = centred @ vectors[:, ::-1][:, :3]
    projected = projected * np.where((projected**3).sum(axis=0) < 0, -1, 1)
    low, high = np.percentile(projected, [_CUT, 100 - _CUT], axis=0)
    share = (projected - low) / np.where(high > low, high - low, 1)
    coloured = np.zeros((len(cells), 3), np.uint8)
    coloured[:, : share.shape[1]] = np.rint(255 * np.clip(share, 0, 1))
    return coloured.reshape(*features.shape[1:], 3)


def matrix(values: ArrayLike, rows: Sequence[str], columns: Sequence[str], scale: Scale) -> Picture:
    """Draw a table of numbers as coloured cells, with the numbers where there are few columns.

    Args:
        values: [R, K].
        rows: names on the left.
        columns: names on top, short ones.
        scale: the range of the colours.

    Returns:
        [h, w, 3] uint8 RGB.
    """
    values = np.asarray(values, np.float64)
    numbered = values.shape[1] <= _MOST_NUMBERS
    cell = _CELL if numbered else _NARROW_CELL
    left = round(max((font(_FONT_SIZE).getlength(row) for row in rows), default=0)) + 2 * _PAD
    top = _FONT_SIZE + 2 * _PAD
    canvas = Image.new("RGB", (left + cell * len(columns) + _PAD, top + cell * len(rows) + _PAD), BACKGROUND)
    draw, colours = ImageDraw.Draw(canvas), heat(values, scale)
    for number, name in enumerate(columns):
        draw_text(draw, (left + (number + 0.5) * cell, top / 2), name, _FONT_SIZE, "mm")
    for i, name in enumerate(rows):
        y = top + i * cell
        draw_text(draw, (_PAD, y + cell / 2), name, _FONT_SIZE)
        for j, colour in enumerate(colours[i].tolist()):
            x = left + j * cell
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=tuple(colour))
            if numbered:
                ink = {"ink": BACKGROUND} if sum(colour) < _DARK else {}
                middle = x + cell / 2, y + cell / 2
                draw_text(draw, middle, scale.text(values[i, j]), _FONT_SIZE, "mm", **ink)
    return np.asarray(canvas)
