"""Images and labels from files, checked; labels come out canonical (see :mod:`ovrs.data.card`)."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ovrs.data.card import ColourEncoding, DatasetCard, IdEncoding
from ovrs.data.errors import DataError, shortened
from ovrs.structures import IGNORE_LABEL

_UNKNOWN = 254  # marks stored values that the card does not list; never a class (see MAX_CLASSES)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SAMPLES_PER_PIXEL = 277  # TIFF tag
_PIL_BANDS = 4  # PIL reads TIFFs of up to four bands
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_ID_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as RGB.

    Grey is repeated, palettes are resolved, alpha and bands after the third are dropped. An EXIF
    orientation is not applied: label files carry none, so turning the image would part it from its labels.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DataError: no such file, not an image, damaged, or deeper than 8 bits per channel (how to scale
            those is a choice that only the data's owner can make).
    """
    with _opened(path) as image:
        if image is None:
            return _read_bands(path)
        # PIL cuts 16-bit colour down to its high byte without a word; only the raw mode tells
        if image.mode not in _EIGHT_BIT_MODES or any(";16" in str(tile[3]) for tile in image.tile):
            raise DataError(
                f"image {path} has more than 8 bits per channel (mode {image.mode}); "
                "scale it to 8-bit RGB first, with one fixed range for the whole data set."
            )
        return np.array(image.convert("RGB"))


def read_labels(path: str | Path, card: DatasetCard) -> np.ndarray:
    """Read a label file and decode it as ``card`` says.

    Returns:
        uint8 [H, W], class index 0..T-1 or ``IGNORE_LABEL`` (255).

    Raises:
        DataError: no such file, damaged, not of the kind the card describes, or it holds values that the
            card does not list; the message counts them and names the listed ones.
    """
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
    """Return (height, width) from the header of an image file.

    Raises:
        DataError: no such file, or not an image.
    """
    with _opened(path) as image:
        if image is not None:
            return image.height, image.width
    with _opened_bands(path) as raster:
        return raster.height, raster.width


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image | None]:
    """Open with PIL; None for TIFFs that need rasterio. Any trouble in the block becomes a DataError.

    PIL warns from its pixel limit on and refuses from twice that limit (about 13,000 x 13,000). Tiles of
    10,000 x 10,000 are usual here, so the warning is dropped and the refusal stays.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                image = Image.open(path)
            except UnidentifiedImageError:
                with open(path, "rb") as stream:
                    if stream.read(4) not in _TIFF_STARTS:
                        raise
                yield None
                return
            with image:
                yield None if _tiff_bands(image) > _PIL_BANDS else image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except UnidentifiedImageError:
        raise DataError(f"{path} is no image file that can be read; replace it by a PNG, JPEG or TIFF.") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large to be read at once ({error}); cut it into tiles.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(f"{path} cannot be read, it is probably damaged ({error}); fetch it again.") from None


def _tiff_bands(image: Image.Image) -> int:
    tags: Any = getattr(image, "tag_v2", {})
    return tags.get(_SAMPLES_PER_PIXEL, 1)


@contextmanager
def _opened_bands(path: str | Path) -> Iterator[Any]:
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    except ImportError:
        raise DataError(
            f"{path} is a TIFF that needs rasterio (more than four bands, or a rare layout); "
            "install it with: pip install ovrs[raster]"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as raster:
                yield raster
    except RasterioError as error:
        raise DataError(f"{path} cannot be read, it is probably damaged ({error}); fetch it again.") from None


def _read_bands(path: str | Path) -> np.ndarray:
    with _opened_bands(path) as raster:
        if raster.count < 3 or set(raster.dtypes[:3]) != {"uint8"}:
            raise DataError(
                f"image {path} has {raster.count} bands of type {raster.dtypes[0]}; "
                "needed are red, green and blue first, 8 bits each. Convert it."
            )
        return np.ascontiguousarray(raster.read((1, 2, 3)).transpose(1, 2, 0))


def _decode_ids(path: str | Path, encoding: IdEncoding, card: DatasetCard) -> np.ndarray:
    with _opened(path) as image:
        if image is None or image.mode not in _ID_MODES:
            kind = "several bands" if image is None else f"mode {image.mode}"
            raise DataError(
                f"labels {path} have {kind}, but {card.path} describes one integer per pixel; "
                "convert them to one channel, or describe their colours under labels.colours."
            )
        stored = np.asarray(image)  # of a palette image: the indices
    table = _id_table(encoding)
    outside = len(table) - 1
    slots = stored
    if stored.dtype == bool:
        slots = stored.astype(np.uint8)
    elif stored.dtype != np.uint8:
        slots = np.where((stored < 0) | (stored >= outside), outside, stored.astype(np.int64))
    decoded = table[slots]
    unknown = decoded == _UNKNOWN
    if unknown.any():
        values, counts = np.unique(stored[unknown], return_counts=True)
        _refuse_values(path, values.tolist(), counts, [value for value, _ in encoding.table], card)
    return decoded


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
    with _opened(path) as image:
        if image is None or image.mode not in ("P", "RGB", "RGBA"):
            kind = "several bands" if image is None else f"mode {image.mode}"
            raise DataError(
                f"labels {path} have {kind}, but {card.path} describes RGB colours; "
                "convert them, or describe their integers under labels.ids."
            )
        colours = np.asarray(image.convert("RGB"))
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
