"""Images and labels from files, checked; labels come out canonical (see :mod:`ovrs.data.card`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from torch.utils.data import get_worker_info

from ovrs.data import rasters
from ovrs.data.card import DatasetCard
from ovrs.data.coco import label_size, read_coco_labels
from ovrs.data.encodings import CocoEncoding, ColourEncoding, IdEncoding
from ovrs.data.rasters import Raster, open_image, open_labels, turned
from ovrs.errors import DataError, shortened
from ovrs.structures import IGNORE_LABEL

_logger = logging.getLogger(__name__)

_warned: set[str] = set()  # cards whose undeclared 255 was told of
_UNKNOWN = 254  # marks stored values that the card does not list; never a class (see MAX_CLASSES)


def read_image(
    path: str | Path,
    apply_orientation: bool = False,
    bands: Sequence[int] = rasters.RGB,
    value_range: Sequence[float] = (),
) -> np.ndarray:
    """Read an image as RGB, the values that its file stores.

    Grey is repeated, black and white become 0 and 255, palettes are resolved; alpha and bands after the third are
    dropped without touching the colours. Of a TIFF with several pages the largest is read.

    Args:
        path: the file: TIFF, JPEG 2000, or whatever Pillow reads.
        apply_orientation: whether the image is turned as viewers turn it, by the orientation in its header. Training
            and evaluation read the stored grid: label files carry no orientation, so turning the image would part
            it from its labels.
        bands: see :func:`ovrs.data.rasters.open_image`.
        value_range: likewise.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: see :func:`ovrs.data.rasters.open_image`; or too large to be read at once.
    """
    with open_image(path, bands, value_range) as raster:
        pixels = _whole(raster, path)
        return turned(pixels, raster.orientation) if apply_orientation else pixels


def read_labels(path: str | Path, card: DatasetCard) -> np.ndarray:
    """Read a label file and decode it as ``card`` says.

    The stored value 255 is ignored also where the card does not list it, which is said once per card. A file of
    nothing but 0 and 255 under a card that lists 1 is refused: it is a mask of 0 and 255 among masks of 0 and 1.

    Returns:
        uint8 [H, W], class index 0..T-1 or ``IGNORE_LABEL`` (255).

    Raises:
        DataError: no such file, damaged, not of the kind the card describes, or it holds values that the
            card does not list; the message counts them and names the listed ones.
    """
    if isinstance(card.labels, CocoEncoding):
        return read_coco_labels(path, card.labels, card)
    if isinstance(card.labels, ColourEncoding):
        return _decode_colours(path, card.labels, card)
    return _decode_ids(path, card.labels, card)


def read_pair(image_path: str | Path, label_path: str | Path, card: DatasetCard) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its labels (:func:`read_image`, :func:`read_labels`).

    Raises:
        DataError: as there, or the two differ in size.
    """
    image, labels = read_image(image_path), read_labels(label_path, card)
    if image.shape[:2] != labels.shape:
        height, width = image.shape[:2]
        raise DataError(
            f"image {image_path} is {width} x {height} (width x height), but its labels {label_path} are "
            f"{labels.shape[1]} x {labels.shape[0]}; replace the one that is wrong."
        )
    return image, labels


def read_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of an image, or of labels of any coding, from the header of the file.

    Raises:
        DataError: no such file, or not an image.
    """
    return label_size(path) or rasters.read_size(path)


def _whole(raster: Raster, path: str | Path) -> np.ndarray:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or np.inf)  # as Pillow has it for what it reads
    if raster.height * raster.width > limit:
        raise DataError(
            f"{path} is too large to be read at once ({raster.width} x {raster.height}); cut it into tiles."
        )
    return raster.rows(0, raster.height)


def _decode_ids(path: str | Path, encoding: IdEncoding, card: DatasetCard) -> np.ndarray:
    with open_labels(path, colours=False, card=str(card.path)) as raster:
        stored = _whole(raster, path)
    if encoding.threshold is not None:
        stored = np.where(stored >= encoding.threshold, np.uint8(255), np.uint8(0))
    table = _id_table(encoding)
    outside = len(table) - 1
    if stored.dtype == np.uint8:
        decoded = cv2.LUT(stored, table[:256])
    else:
        decoded = table[np.where((stored < 0) | (stored >= outside), outside, stored.astype(np.int64))]
    unknown = decoded == _UNKNOWN
    if unknown.any():
        values, counts = np.unique(stored[unknown], return_counts=True)
        _refuse_values(path, values.tolist(), counts, [value for value, _ in encoding.table], card)
    listed = {value for value, _ in encoding.table}
    if IGNORE_LABEL not in listed and (stored == IGNORE_LABEL).any():
        if 1 in listed and (stored == 0).any() and ((stored == 0) | (stored == IGNORE_LABEL)).all():
            raise DataError(
                f"labels {path} hold nothing but 0 and 255, but {card.path} lists 1 and not 255, which would be "
                "ignored. If 255 is a class in all files, write labels: {ids: {0: ..., 255: ...}}; if only in some, "
                "make them alike; if it does mean ignored, list it: ignore: [255]."
            )
        _warn_of_undeclared(str(card.path), str(path))
    return decoded


def _warn_of_undeclared(card: str, path: str) -> None:
    worker = get_worker_info()
    if card in _warned or (worker is not None and worker.id):  # one of the processes says it
        return
    _warned.add(card)
    text = "%s does not list the value 255, which %s holds: such pixels are ignored. If that is meant, list it: %s"
    _logger.warning(text, card, path, "ignore: [255]. (Said once per card.)")


@lru_cache(maxsize=32)
def _id_table(encoding: IdEncoding) -> np.ndarray:
    """Return class indices by stored value; the last slot is for all values beyond."""
    size = max(256, 1 + max(value for value, _ in encoding.table))
    table = np.full(size + 1, _UNKNOWN, np.uint8)
    table[IGNORE_LABEL] = IGNORE_LABEL
    for value, index in encoding.table:
        table[value] = index
    return table


def _decode_colours(path: str | Path, encoding: ColourEncoding, card: DatasetCard) -> np.ndarray:
    with open_labels(path, colours=True, card=str(card.path)) as raster:
        colours = _whole(raster, path)
    if encoding.threshold is not None:
        colours = np.where(colours >= encoding.threshold, np.uint8(255), np.uint8(0))
    keys = _colour_keys(colours)
    decoded = _colour_table(encoding)[keys]
    unknown = decoded == _UNKNOWN
    if unknown.any():
        values, counts = np.unique(keys[unknown], return_counts=True)
        found = [f"#{value:06X}" for value in values]
        _refuse_values(path, found, counts, ["#{:02X}{:02X}{:02X}".format(*c) for c, _ in encoding.table], card)
    return decoded


def _colour_keys(colours: np.ndarray) -> np.ndarray:
    """Return [H, W] 24-bit integers 0xRRGGBB."""
    keys = colours[..., 0].astype(np.uint32)
    for channel in (1, 2):
        keys <<= 8
        keys |= colours[..., channel]
    return keys


@lru_cache(maxsize=4)  # 16 MiB each
def _colour_table(encoding: ColourEncoding) -> np.ndarray:
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    for colour, index in encoding.table:
        table[_colour_keys(np.asarray(colour, np.uint8))] = index
    return table


def _refuse_values(path: str | Path, values: list, counts: np.ndarray, allowed: list, card: DatasetCard) -> None:
    found = [f"{values[i]} ({counts[i]} pixels)" for i in np.argsort(-counts)]
    raise DataError(
        f"labels {path} hold values that {card.path} does not list: {shortened(found)}. Listed are "
        f"{shortened(allowed, 20)}. Add them to the card (a class, or ignored), or repair the file."
    )
