"""Sheets of what a head showed: one per quantity, and one of all streams class by class."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from ovrs.explain.recorder import Explanation
from ovrs.visualization import Picture, Row, Scale, fitted, heat, heat_overlay, matrix, principal_colours, sheet

# Sides of the square that a map is fitted into, in pixels: alone, one of a few classes, one of many.
_LARGE, _SIDE, _SMALL = 304, 208, 152
_FEW = 5  # classes
_ALONE = ("map", "features", "relations")
_COLUMNS = 8  # classes in a row
_WIDTH = 900  # of a sheet in pixels at least: room for a title
_MARK = (255, 60, 60)


def draw(found: Explanation, name: str, *, own_scales: bool = False) -> Picture:
    """Draw one quantity beside the image.

    Args:
        found: what was recorded.
        name: of the quantity.
        own_scales: whether the map of every class has colours of its own, from its least to its largest value, to
            show its form; otherwise the classes share a scale, and can be compared.

    Returns:
        [h, w, 3] uint8 RGB.
    """
    quantity = found.quantities[name]
    side = _LARGE if quantity.kind in _ALONE else _side(found)
    rows = getattr(_Rows(found, side, own_scales), quantity.kind)(found.values[name])
    return sheet(rows, f"{name}: {quantity.meaning}", width=_WIDTH)


def draw_streams(found: Explanation, *, own_scales: bool = False) -> Picture | None:
    """Draw all maps of classes below each other, a row for each quantity, a column for each class.

    Args:
        found: what was recorded.
        own_scales: see :func:`draw`.

    Returns:
        [h, w, 3] uint8 RGB, or ``None`` where there are fewer than two such quantities.
    """
    shown = {name: quantity for name, quantity in found.quantities.items() if quantity.kind == "class_maps"}
    if len(shown) < 2:
        return None
    drawn = _Rows(found, _side(found), own_scales)
    rows = [
        row
        for name, quantity in shown.items()
        for row in drawn.class_maps(found.values[name], f"{name}: {quantity.meaning}")
    ]
    return sheet(rows, "all maps of classes", width=_WIDTH)


def _side(found: Explanation) -> int:
    return _SIDE if len(found.vocabulary.names) <= _FEW else _SMALL


class _Rows:
    """The rows of a sheet; a method for every kind of quantity, named as the kind."""

    def __init__(self, found: Explanation, side: int, own_scales: bool) -> None:
        self.found, self.own_scales = found, own_scales
        self.picture = fitted(found.picture, side)
        self.image = ("image", self.marked(self.picture) if found.pointed else self.picture)

    def map(self, values: np.ndarray) -> list[Row]:
        scale = Scale.of(values)
        return [Row([self.image, ("map", heat(self.fit(values), scale))], scale=scale)]

    def class_maps(self, values: np.ndarray, title: str = "") -> list[Row]:
        common = None if self.own_scales else Scale.of(values)
        panels = []
        for name, one in zip(self.found.rows(len(values)), values, strict=True):
            scale = common or Scale.of(one)
            caption = name if common else f"{name} {scale.text(scale.low)}..{scale.text(scale.high)}"
            panels.append((caption, heat(self.fit(one), scale)))
        return self.in_rows(panels, title, common)

    def features(self, values: np.ndarray) -> list[Row]:
        return [Row([self.image, ("principal components", self.fit(principal_colours(values)))])]

    def class_features(self, values: np.ndarray) -> list[Row]:
        coloured = principal_colours(values.transpose(1, 0, 2, 3))  # common to all classes
        panels = zip(self.found.rows(len(values)), map(self.fit, coloured), strict=True)
        return [
            *self.class_maps(np.linalg.norm(values, axis=1), "length of the features"),
            *self.in_rows(panels, "their principal components as colours"),
        ]

    def relations(self, values: np.ndarray) -> list[Row]:
        row, column = self.found.view.cell(values.shape[:2])
        weights = values[row, column]
        scale = Scale(0.0, float(weights.max()) or 1.0)
        related = heat_overlay(self.picture, self.fit(weights, cv2.INTER_NEAREST), scale)
        others = int((weights > 0).sum()) - int(weights[row, column] > 0)
        panels = [("image", self.marked(self.picture)), (f"{others} other cells", self.marked(related))]
        return [Row(panels, f"cell in row {row}, column {column}; of itself {scale.text(weights[row, column])}", scale)]

    def class_relations(self, values: np.ndarray) -> list[Row]:
        if self.found.pointed:
            row, column = self.found.view.cell(values.shape[2:])
            where, values = f"in the cell in row {row}, column {column}", values[:, :, row, column]
        else:
            where, values = "mean over all cells", values.mean(axis=(2, 3))
        names, numbers = self.numbered(len(values))
        scale = Scale.of(values)
        table = ("looked at", matrix(values, names, numbers, scale))
        return [Row([self.image, table], f"a row looks at the columns, {where}", scale)]

    def class_values(self, values: np.ndarray) -> list[Row]:
        scale = Scale(0.0, max(1.0, float(values.max())))
        return [Row([self.image, ("", matrix(values[:, None], self.numbered(len(values))[0], [""], scale))], "", scale)]

    # ------------------------------------------------------------------ parts

    def in_rows(self, panels: Iterable[tuple[str, Picture]], title: str, scale: Scale | None = None) -> list[Row]:
        """Return a row, or several where there are many classes, with the image before the first."""
        panels, blank = list(panels), ("", np.full_like(self.picture, 255))
        starts = range(0, len(panels), _COLUMNS)
        return [
            Row([blank if start else self.image, *panels[start : start + _COLUMNS]], "" if start else title, scale)
            for start in starts
        ]

    def numbered(self, count: int) -> tuple[list[str], list[str]]:
        """Return names with their numbers, and the numbers alone."""
        names = self.found.rows(count)
        return [f"{number} {name}" for number, name in enumerate(names, start=1)], [str(i + 1) for i in range(count)]

    def fit(self, cells: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
        """Enlarge cells, or their colours, over the view, cut the padding off and fit the rest into the square."""
        (height, width), (top, bottom, left, right) = self.found.view.pixels.shape[-2:], self.found.view.inside
        whole = cv2.resize(cells, (width, height), interpolation=interpolation)[top:bottom, left:right]
        return cv2.resize(whole, self.picture.shape[1::-1], interpolation=interpolation)

    def marked(self, picture: Picture) -> Picture:
        """Draw a cross on a picture of the view where its point is."""
        (top, bottom, left, right), (row, column) = self.found.view.inside, self.found.view.point
        x = round((column + 0.5 - left) / (right - left) * picture.shape[1] - 0.5)
        y = round((row + 0.5 - top) / (bottom - top) * picture.shape[0] - 0.5)
        return cv2.drawMarker(picture.copy(), (x, y), _MARK, cv2.MARKER_CROSS, 14, 2)
