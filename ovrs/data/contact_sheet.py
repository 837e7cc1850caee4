"""A data set on one page: some images beside their labels, and the histogram of its classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image, ImageDraw

from ovrs.data.augmentation import resize_image, resize_labels
from ovrs.data.inspection import ClassCounts, evenly_spread
from ovrs.data.pairing import Record
from ovrs.data.reading import read_image, read_pair
from ovrs.data.work import progress
from ovrs.visualization import IGNORED_COLOUR, Picture, colourise, draw_text, legend

_TILE = 240  # side of the square that a picture is fitted into
_PAD = 8
_COLUMNS = 3  # pairs of image and labels
_TEXT = 14
_TITLE = 20
_NAME_WIDTH = 300  # of the histogram's class names
_FIGURES_WIDTH, _PIXELS_WIDTH = 240, 150  # of its percentages and pixels, and of the pixels alone
_BACKGROUND, _OUTLINE = (255, 255, 255), (120, 120, 120)


def contact_sheet(name: str, images: int, counts: ClassCounts | None) -> Picture:
    """Draw images of a data set beside their labels, and below them the pixels of every class.

    Args:
        name: a registered name, see :func:`ovrs.data.resolve_datasets`.
        images: number of images, at least 1, evenly spread over the data set.
        counts: of the data set's labels; None draws no histogram.

    Returns:
        uint8 [H, W, 3] RGB. Ignored pixels are black.

    Raises:
        DataError: the files cannot be found, paired or read.
    """
    metadata, records = MetadataCatalog.get(name), DatasetCatalog.get(name)
    chosen = evenly_spread(records, images)
    cells = list(progress((_cell(record, metadata) for record in chosen), f"drawing {name}", len(chosen), "image"))
    columns = min(_COLUMNS, len(cells))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    grid = np.stack(cells).reshape(-1, columns, *cells[0].shape)
    height, width, _ = cells[0].shape
    body = grid.transpose(0, 2, 1, 3, 4).reshape(len(grid) * height, columns * width, 3)

    parts = [_line(f"{name}: {len(records):,} images, {len(chosen)} of them here", _TITLE, body.shape[1]), body]
    if counts is not None:
        read = "all" if counts.files == counts.of_files else f"{counts.files:,} of {counts.of_files:,}"
        parts.append(_line(f"Pixels of the classes in {read} label files", _TITLE, body.shape[1]))
        parts += _histogram(counts, metadata, body.shape[1])
    sheet_width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, sheet_width - part.shape[1]), (0, 0)), constant_values=255) for part in parts]
    )


def _cell(record: Record, metadata: Any) -> Picture:
    """Draw an image, its labels where it has some, and its stem."""
    if "sem_seg_file_name" in record:
        image, labels = read_pair(record["file_name"], record["sem_seg_file_name"], metadata.card)
        shape = _fitted(*labels.shape)
        panels = [resize_image(image, *shape), colourise(resize_labels(labels, *shape), metadata.stuff_colors)]
    else:
        image = read_image(record["file_name"])
        panels = [resize_image(image, *_fitted(*image.shape[:2]))]
    caption = _line(record["stem"], _TEXT, len(panels) * (_TILE + _PAD) + _PAD)
    cell = np.full((_PAD + _TILE + len(caption), caption.shape[1], 3), 255, np.uint8)
    for place, panel in enumerate(panels):
        left = _PAD + place * (_TILE + _PAD)
        cell[_PAD : _PAD + panel.shape[0], left : left + panel.shape[1]] = panel
    cell[_PAD + _TILE :] = caption
    return cell


def _fitted(height: int, width: int) -> tuple[int, int]:
    scale = _TILE / max(height, width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _histogram(counts: ClassCounts, metadata: Any, width: int) -> list[Picture]:
    """Draw a row per class and one for ignored pixels: colour, name, bar, share and pixels."""
    width = max(width, _NAME_WIDTH + 2 * _FIGURES_WIDTH)
    rows = list(zip(metadata.stuff_classes, metadata.stuff_colors, counts.shares, counts.pixels, strict=True))
    rows.append(("ignored, of all pixels", IGNORED_COLOUR, counts.ignored_share, counts.ignored))
    longest = max(share for _, _, share, _ in rows) or 1
    pictures = []
    for name, colour, share, pixels in rows:
        key = legend([name], [colour], _NAME_WIDTH)
        row = Image.new("RGB", (width, len(key)), _BACKGROUND)
        row.paste(Image.fromarray(key))
        draw, middle = ImageDraw.Draw(row), row.height / 2
        length = round((width - _NAME_WIDTH - _FIGURES_WIDTH) * share / longest)
        if length:
            bar = (_NAME_WIDTH, _PAD, _NAME_WIDTH + length - 1, row.height - _PAD - 1)
            draw.rectangle(bar, fill=tuple(colour), outline=_OUTLINE)
        draw_text(draw, (width - _PIXELS_WIDTH, middle), f"{100 * share:.2f} %", _TEXT, anchor="rm")
        draw_text(draw, (width - _PAD, middle), f"{pixels:,}", _TEXT, anchor="rm")
        pictures.append(np.asarray(row))
    return pictures


def _line(text: str, size: int, width: int) -> Picture:
    """Draw a line of text, cut off at the right."""
    canvas = Image.new("RGB", (width, size + _PAD), _BACKGROUND)
    draw_text(ImageDraw.Draw(canvas), (_PAD, canvas.height / 2), text, size)
    return np.asarray(canvas)
