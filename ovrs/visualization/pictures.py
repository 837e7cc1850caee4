"""Pictures of label maps: overlays and legends, drawn with Pillow.

Images are uint8 RGB arrays [H, W, 3], label maps integer arrays [H, W] of class indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from ovrs.files import replacing
from ovrs.visualization.fonts import draw_text, font
from ovrs.visualization.palettes import IGNORED_COLOUR

Picture = NDArray[np.uint8]

BACKGROUND = (255, 255, 255)
_OUTLINE = (120, 120, 120)
_UNSCALED = 1200  # pixels of width up to which text has the sizes below; on wider pictures it grows with them
FONT_SIZE = 15
PAD = 8
_SWATCH = 18
NARROWEST = 2 * (_SWATCH + 2 * PAD)  # the smallest legend that can show a letter


def colourise(labels: ArrayLike, palette: ArrayLike, ignore: int = 255) -> Picture:
    """Turn a label map into a picture.

    Args:
        labels: [H, W] class indices.
        palette: [T, 3] RGB in 0..255.
        ignore: label of pixels that do not count; they become black.

    Returns:
        [H, W, 3].

    Raises:
        ValueError: a label that is neither in the palette nor ``ignore``, or wrong shapes.
    """
    labels, colours = checked_label_map(labels, "labels"), _colours(palette)
    ignored = labels == ignore
    _check_range(labels[~ignored], len(colours), f"the palette has {len(colours)} colours and ignore is {ignore}")
    table = np.concatenate([colours, np.array([IGNORED_COLOUR], np.uint8)])
    return table[np.where(ignored, len(colours), labels)]


def overlay(image: ArrayLike, labels: ArrayLike, palette: ArrayLike, alpha: float = 0.5, ignore: int = 255) -> Picture:
    """Lay the colours of a label map over an image; ignored pixels show the image as it is.

    Args:
        image: [H, W, 3] uint8 RGB.
        labels: [H, W] class indices.
        palette: [T, 3] RGB in 0..255.
        alpha: weight of the colours, in 0..1.
        ignore: label of pixels that do not count.

    Returns:
        [H, W, 3].

    Raises:
        ValueError: sizes differ, a label is not in the palette, or ``alpha`` is out of range.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; give a weight from 0 (image only) to 1 (colours only).")
    image, labels = checked_image(image), checked_label_map(labels, "labels")
    checked_size(labels, image, "labels")
    colours = colourise(labels, palette, ignore)
    blended = np.rint((1 - alpha) * image + alpha * colours).astype(np.uint8)
    return np.where((labels == ignore)[..., None], image, blended)


def legend(names: Sequence[str], palette: ArrayLike, width: int, shares: Mapping[int, float] | None = None) -> Picture:
    """Draw a legend: a swatch and a name per class, in as many columns as fit; both grow with wide pictures.

    Args:
        names: one per class, in index order.
        palette: [T, 3] RGB in 0..255, a colour for each name at least.
        width: width of the picture in pixels.
        shares: {class index: share in 0..1}; where given, only these classes are listed, with their
            shares in per cent.

    Returns:
        [h, width, 3]; the height follows from the number of classes.

    Raises:
        ValueError: fewer colours than names, no such class, or no room for a single letter.
    """
    colours = _colours(palette)
    if len(colours) < len(names):
        raise ValueError(f"{len(names)} names but {len(colours)} colours; give a colour for every class.")
    if width < NARROWEST:
        raise ValueError(f"width is {width}; a legend needs at least {NARROWEST} pixels.")
    chosen = range(len(names)) if shares is None else sorted(shares)
    _check_range(np.array(list(chosen), int), len(names), f"there are {len(names)} names")
    texts = [names[i] if shares is None else f"{names[i]}  {_percent(shares[i])}" for i in chosen]
    size, swatch, pad = scaled(width, FONT_SIZE, _SWATCH, PAD)

    widest = max((font(size).getlength(text) for text in texts), default=0)
    columns = max(1, int((width - pad) // (swatch + 3 * pad + widest)))
    column_width = (width - pad) // columns
    row_height = swatch + pad
    rows = -(-len(texts) // columns)
    canvas = Image.new("RGB", (width, rows * row_height + pad), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for position, (index, text) in enumerate(zip(chosen, texts, strict=True)):
        # Column by column, so that the order reads downwards.
        x, y = pad + position // rows * column_width, pad + position % rows * row_height
        colour = tuple(colours[index].tolist())
        draw.rectangle((x, y, x + swatch, y + swatch - 1), fill=colour, outline=_OUTLINE)
        room = column_width - swatch - 2 * pad
        draw_text(draw, (x + swatch + pad, y + swatch / 2), shortened_text(text, size, room), size)
    return np.asarray(canvas)


def save_image(path: str | Path, image: ArrayLike) -> Path:
    """Write a picture in full or not at all; the folder is made if needed.

    Args:
        path: its ending chooses the format.
        image: [H, W, 3] uint8 RGB.

    Returns:
        The path.

    Raises:
        ValueError: an ending that no image format has.
    """
    path, picture = Path(path), Image.fromarray(checked_image(image))
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{path}: no image format ends in {path.suffix!r}. Use .png or .jpg.")
    with replacing(path) as temporary:
        picture.save(temporary)
    return path


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def scaled(width: int, *sizes: int) -> tuple[int, ...]:
    """Return sizes for a picture so wide: what is read on a screen is the picture as a whole."""
    factor = max(width / _UNSCALED, 1)
    return tuple(round(factor * size) for size in sizes)


def shortened_text(text: str, size: int, room: float) -> str:
    """Return the text, cut with an ellipsis where it does not fit."""
    face = font(size)
    if face.getlength(text) <= room:
        return text
    while text and face.getlength(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…"


def checked_image(image: ArrayLike) -> Picture:
    """Return an image as an array; ValueError if it is not uint8 RGB."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 RGB [H, W, 3], got {image.dtype} of shape {list(image.shape)}.")
    return image


def checked_label_map(labels: ArrayLike, name: str) -> NDArray[np.integer]:
    """Return a label map as an array; ValueError, with its name, if it is not of integers [H, W]."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} must be integers [H, W], got {labels.dtype} of shape {list(labels.shape)}.")
    return labels


def _colours(palette: ArrayLike) -> Picture:
    colours = np.asarray(palette)
    if colours.ndim != 2 or colours.shape[1] != 3 or (colours.size and not 0 <= colours.min() <= colours.max() <= 255):
        raise ValueError(f"palette must be RGB [T, 3] in 0..255, got shape {list(colours.shape)}.")
    return colours.astype(np.uint8)


def checked_size(labels: NDArray[np.integer], image: Picture, name: str) -> None:
    """Raise ValueError, with the map's name, if a label map has not the size of its image."""
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f"{name} is {labels.shape[0]} x {labels.shape[1]}, the image {image.shape[0]} x {image.shape[1]} pixels; "
            "resize one to the other."
        )


def _check_range(labels: NDArray[np.integer], count: int, limit: str) -> None:
    if labels.size and not 0 <= labels.min() <= labels.max() < count:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"label {wrong} is out of range: {limit}. Use the class list that the labels were made for.")
