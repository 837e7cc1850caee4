"""Sheets: rows of pictures with captions, a colour bar beside each row, and a legend below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from ovrs.visualization.fonts import draw_text
from ovrs.visualization.heat import Scale, heat
from ovrs.visualization.pictures import (
    BACKGROUND,
    FONT_SIZE,
    NARROWEST,
    PAD,
    Picture,
    checked_image,
    checked_label_map,
    checked_size,
    legend,
    overlay,
    scaled,
    shortened_text,
)

SHEET_ALPHA = 0.65  # of the maps on a sheet: colours to tell apart, and the image still to be seen
_TITLE_SIZE = 20
_BAR, _BAR_ROOM = 14, 88  # width of a colour bar, and of it with its numbers


@dataclass(frozen=True)
class Row:
    """Pictures side by side.

    Attributes:
        panels: (caption, uint8 RGB [h, w, 3]).
        title: a line above; "" for none.
        scale: what the colours of the row stand for, shown as a colour bar on the right.
    """

    panels: Sequence[tuple[str, Picture]]
    title: str = ""
    scale: Scale | None = None


@dataclass(frozen=True)
class Compared:
    """An image and what several models made of it.

    Attributes:
        title: of the image.
        image: [H, W, 3] uint8 RGB.
        truth: [H, W] class indices, or ``None``.
        predictions: {model: [H, W] class indices}.
    """

    title: str
    image: Picture
    truth: ArrayLike | None
    predictions: Mapping[str, ArrayLike]


def sheet(rows: Sequence[Row], title: str = "", below: Picture | None = None, width: int = 0) -> Picture:
    """Draw rows of pictures one below the other.

    Args:
        rows: from top to bottom.
        title: a line on top; "" for none.
        below: a picture under all rows, such as a legend.
        width: in pixels at least, for long titles.

    Returns:
        [h, w, 3] uint8 RGB.
    """
    width = max(sheet_width(rows), width)
    size, title_size, pad = scaled(width, FONT_SIZE, _TITLE_SIZE, PAD)
    line, top = size + pad, title_size + 2 * pad if title else PAD
    height = top + sum(_tallest(row) + line * (2 if row.title else 1) for row in rows)
    canvas = Image.new("RGB", (width, height + (0 if below is None else len(below))), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw_text(draw, (PAD, top / 2), shortened_text(title, title_size, width - 2 * PAD), title_size)
    y = top
    for row in rows:
        if row.title:
            draw_text(draw, (PAD, y + line / 2), shortened_text(row.title, size, width - 2 * PAD), size)
            y += line
        x = PAD
        for caption, panel in row.panels:
            canvas.paste(Image.fromarray(panel), (x, y))
            middle = x + panel.shape[1] / 2, y + len(panel) + line / 2
            draw_text(draw, middle, shortened_text(caption, size, panel.shape[1]), size, "mm")
            x += panel.shape[1] + PAD
        if row.scale:
            _draw_bar(canvas, row.scale, (x, y), _tallest(row))
        y += _tallest(row) + line
    if below is not None:
        canvas.paste(Image.fromarray(below), (0, y))
    return np.asarray(canvas)


def sheet_width(rows: Sequence[Row]) -> int:
    """Return the width of a sheet of these rows in pixels."""
    widths = [
        PAD + sum(panel.shape[1] + PAD for _, panel in row.panels) + (_BAR_ROOM if row.scale else 0) for row in rows
    ]
    return max(*widths, NARROWEST)


def comparison_sheet(
    image: ArrayLike,
    truth: ArrayLike | None,
    prediction: ArrayLike,
    names: Sequence[str],
    palette: ArrayLike,
    title: str = "",
    ignore: int = 255,
) -> Picture:
    """Draw image, truth and prediction side by side, both maps laid over the image, with a legend below.

    The legend lists the classes that occur, with their shares of the prediction.

    Args:
        image: [H, W, 3] uint8 RGB.
        truth: [H, W] class indices, or None to leave it out.
        prediction: [H, W] class indices.
        names: one per class.
        palette: [T, 3] RGB in 0..255.
        title: a line on top; "" for none.
        ignore: label of pixels that do not count.

    Returns:
        [h, w, 3].

    Raises:
        ValueError: sizes differ, or a label has no name or colour.
    """
    compared = Compared("", image, truth, {"prediction": prediction})
    row, present = _compared_row(compared, palette, ignore), _present([compared], ignore)
    counted = np.asarray(prediction)[np.asarray(prediction) != ignore]
    shares = {index: float((counted == index).mean()) if counted.size else 0.0 for index in present}
    return sheet([row], title, legend(names, palette, sheet_width([row]), shares))


def models_sheet(
    compared: Sequence[Compared], names: Sequence[str], palette: ArrayLike, width: int = 256, ignore: int = 255
) -> Picture:
    """Draw images below each other, each with its truth and what every model made of it, under one legend.

    Args:
        compared: the images, with the same models.
        names: one per class.
        palette: [T, 3] RGB in 0..255.
        width: of every picture in pixels, so that columns are straight.
        ignore: label of pixels that do not count.

    Returns:
        [h, w, 3]; the legend lists the classes that occur.

    Raises:
        ValueError: sizes differ, or a label has no name or colour.
    """
    rows = [
        Row([(caption, _of_width(panel, width)) for caption, panel in row.panels], row.title)
        for row in (_compared_row(each, palette, ignore) for each in compared)
    ]
    present = _present(compared, ignore)
    colours = np.asarray(palette)[present]
    return sheet(rows, below=legend([names[index] for index in present], colours, sheet_width(rows)))


def fitted(picture: Picture, side: int) -> Picture:
    """Return a picture whose longer side has so many pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _of_width(picture: Picture, width: int) -> Picture:
    longer = max(picture.shape[:2])
    return fitted(picture, round(width * longer / picture.shape[1]))


def _compared_row(compared: Compared, palette: ArrayLike, ignore: int) -> Row:
    image = checked_image(compared.image)
    maps = {} if compared.truth is None else {"truth": compared.truth}
    panels = [("image", image)]
    for name, labels in (maps | dict(compared.predictions)).items():
        labels = checked_label_map(labels, name)
        checked_size(labels, image, name)
        panels.append((name, overlay(image, labels, palette, SHEET_ALPHA, ignore)))
    return Row(panels, compared.title)


def _present(compared: Sequence[Compared], ignore: int) -> list[int]:
    """Return the labels that occur."""
    every = [labels for each in compared for labels in (each.truth, *each.predictions.values()) if labels is not None]
    return sorted({int(label) for labels in every for label in np.unique(labels)} - {ignore})


def _tallest(row: Row) -> int:
    return max(len(panel) for _, panel in row.panels)


def _draw_bar(canvas: Image.Image, scale: Scale, corner: tuple[int, int], height: int) -> None:
    x, y = corner
    steps = np.repeat(np.linspace(scale.high, scale.low, height)[:, None], _BAR, axis=1)
    canvas.paste(Image.fromarray(heat(steps, scale)), corner)
    draw = ImageDraw.Draw(canvas)
    for share, anchor in ((0.0, "la"), (0.5, "lm"), (1.0, "ld")):
        value = scale.high + share * (scale.low - scale.high)
        draw_text(draw, (x + _BAR + PAD / 2, y + share * height), scale.text(value), FONT_SIZE - 2, anchor)
