"""Opening image files and label rasters, of every kind that is read, as the values that they store.

The one reader of training, evaluation, prediction and preparation. TIFF and JPEG 2000 files go through GDAL
(:mod:`ovrs.data.tiff`), a band of rows at a time; other pictures are decoded once, by Pillow, and what Pillow does to
them for display is undone. Whatever is wrong with a file is said with its name.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, UnidentifiedImageError

from ovrs.data import pictures, tiff
from ovrs.errors import DataError

RGB = (1, 2, 3)

_BYTE = 255
_CODEC_WORDS = ("codec", "not supported", "unsupported", "not implemented", "not built")

_logger = logging.getLogger(__name__)


class File(Protocol):
    """A file on disk or in an archive; its text is how messages call it."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Open it for reading."""

    def for_gdal(self) -> AbstractContextManager[str]:
        """Give a name under which GDAL reads it within the block."""


class Raster(Protocol):
    """An opened file.

    Attributes:
        height: rows.
        width: columns.
        is_plain: a PNG or JPEG file that is 8-bit RGB as it is, so that nothing is lost by copying it.
        orientation: 1..8, how viewers turn it, see :func:`turned`; ``rows`` does not.
    """

    height: int
    width: int
    is_plain: bool
    orientation: int

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Return the rows top..bottom-1, [rows, width] or [rows, width, 3]."""


@dataclass(frozen=True)
class _OnDisk:
    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    def for_gdal(self) -> AbstractContextManager[str]:
        return nullcontext(str(self.path.absolute()))


class _Picture:
    """A file that Pillow reads, decoded at the first touch."""

    def __init__(self, file: File, image: Image.Image, converted: Callable[[Image.Image], np.ndarray]) -> None:
        self._file, self._image, self._converted = file, image, converted
        self.width, self.height = image.size
        self.is_plain = image.mode == "RGB" and pictures.undo_of(image) is None
        self._pixels: np.ndarray | None = None

    @property
    def orientation(self) -> int:
        return pictures.orientation_of(self._image)

    def rows(self, top: int, bottom: int) -> np.ndarray:
        if self._pixels is None:
            with readable(self._file):
                self._pixels = self._converted(self._image)
        return self._pixels[top:bottom]


class _Bands:
    """A file that GDAL reads."""

    is_plain = False

    def __init__(self, file: File, dataset: Any, bands: int | Sequence[int], page: tiff.Page | None) -> None:
        self._file, self._dataset = file, dataset
        self._bands = bands if isinstance(bands, int) else list(bands)
        self.width, self.height = dataset.width, dataset.height
        self.orientation = page.orientation if page else 1

    def rows(self, top: int, bottom: int) -> np.ndarray:
        with readable(self._file):
            pixels = self._dataset.read(self._bands, window=((top, bottom), (0, self.width)))
        return pixels if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


class _Mapped:
    """A raster whose values stand for others: colours of a palette, black and white."""

    is_plain = False

    def __init__(self, raster: Raster, table: np.ndarray) -> None:
        self._raster, self._table = raster, table
        self.height, self.width, self.orientation = raster.height, raster.width, raster.orientation

    def rows(self, top: int, bottom: int) -> np.ndarray:
        return self._table[self._raster.rows(top, bottom)]


class _Scaled:
    """A raster of deeper values, of which a range becomes 0..255."""

    is_plain = False

    def __init__(self, raster: Raster, value_range: Sequence[float]) -> None:
        self._raster, self._low, self._high = raster, value_range[::2], value_range[1::2]
        self.height, self.width, self.orientation = raster.height, raster.width, raster.orientation

    def rows(self, top: int, bottom: int) -> np.ndarray:
        return to_bytes(self._raster.rows(top, bottom), self._low, self._high)


def to_bytes(values: np.ndarray, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Return values as uint8: ``low`` becomes 0 and ``high`` 255; what is not a number becomes 0.

    Args:
        values: any numbers.
        low: one number, or an array that fits ``values`` in its last axes.
        high: likewise.
    """
    precision = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    low, high = np.asarray(low, precision), np.asarray(high, precision)
    scaled = (values.astype(precision) - low) * (255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)


@contextmanager
def open_image(
    path: str | Path | File, bands: Sequence[int] = RGB, value_range: Sequence[float] = ()
) -> Iterator[Raster]:
    """Open an image as 8-bit RGB: grey is repeated, palettes are resolved, alpha and further bands are dropped.

    Args:
        path: the file.
        bands: of files with three or more bands, the ones that are red, green and blue, from 1 (TIFF, JPEG 2000).
        value_range: of files with more than 8 bits per channel (TIFF, JPEG 2000), LOW and HIGH, which become 0 and
            255, or that for each of the three bands; empty refuses such files.

    Raises:
        DataError: no such file, not an image, damaged, not in RGB, or not of 8 bits per channel (how to scale those
            is a choice that only the data's owner can make).
    """
    with _opened(path) as (file, image, page):
        if isinstance(image, Image.Image):
            # Pillow cuts 16-bit colour down to its high byte without a word; only the raw mode tells
            if image.mode == "LAB":
                raise _wrong_colours(file, "LAB")
            if image.mode not in pictures.IMAGE_MODES or pictures.is_deep(image):
                raise _too_deep(file, f"mode {image.mode}")
            yield _Picture(file, image, pictures.as_rgb)
            return
        if page and page.photometric in tiff.COLOUR_SPACES and page.photometric != tiff.CMYK:
            raise _wrong_colours(file, tiff.COLOUR_SPACES[page.photometric])
        colours = _palette(image, page)
        if image.count < 3:
            if page and page.photometric == tiff.MIN_IS_WHITE:
                _say(file, "stores its greys inverted (white is 0); they are read as stored")
            if image.count == 2 and not (page and page.extra and page.extra[0]):
                _say(file, "has two bands that nothing describes; the first is read as grey")
        if colours is not None:
            yield _Mapped(_Bands(file, image, 1, page), colours)
            return
        chosen = (1, 1, 1) if image.count < 3 else bands
        if max(chosen) > image.count:
            raise DataError(
                f"image {file} has {image.count} bands of type {image.dtypes[0]}; "
                f"the bands {', '.join(map(str, chosen))} of 8 bits each were expected. Is it the right file?"
            )
        raster = _Bands(file, image, chosen, page)
        if any(image.dtypes[band - 1] != "uint8" for band in chosen):
            if not value_range:
                raise _too_deep(file, f"{image.count} bands of type {image.dtypes[0]}")
            yield _Scaled(raster, value_range)
            return
        yield _Mapped(raster, np.array([0, 255], np.uint8)) if page and page.bits == 1 else raster


@contextmanager
def open_labels(path: str | Path | File, *, colours: bool, card: str = "") -> Iterator[Raster]:
    """Open a label raster: RGB colours [rows, width, 3], or ids [rows, width].

    The ids of a palette file are its indices, not what its palette paints; alpha is dropped.

    Args:
        path: the file.
        colours: whether classes are coded as colours.
        card: the data card that says so, for the message.

    Raises:
        DataError: no such file, damaged, or of the other kind.
    """
    with _opened(path) as (file, image, page):
        if isinstance(image, Image.Image):
            deep = ", more than 8 bits per channel" if colours and pictures.is_deep(image) else ""
            if deep or image.mode not in (pictures.COLOUR_MODES if colours else pictures.ID_MODES):
                raise _wrong_kind(file, f"the mode {image.mode}{deep}", colours, card)
            yield _Picture(file, image, pictures.as_rgb if colours else pictures.as_ids)
            return
        kind = f"{image.count} band(s) of type {image.dtypes[0]}"
        if page and page.photometric in tiff.COLOUR_SPACES:
            raise _wrong_kind(file, f"the mode {tiff.COLOUR_SPACES[page.photometric]}", colours, card)
        if not colours:
            is_grey_alpha = image.count == 2 and bool(page and page.extra and page.extra[0])
            if (image.count != 1 and not is_grey_alpha) or not np.issubdtype(image.dtypes[0], np.integer):
                mode = "the mode RGB, " if image.count in (3, 4) and image.dtypes[0] == "uint8" else ""
                raise _wrong_kind(file, mode + kind, colours, card)
            yield _Bands(file, image, 1, page)
        elif (table := _palette(image, page)) is not None:
            yield _Mapped(_Bands(file, image, 1, page), table)
        elif image.count in (3, 4) and set(image.dtypes[:3]) == {"uint8"}:
            yield _Bands(file, image, RGB, page)
        else:
            mode = "the mode L, " if image.count == 1 and image.dtypes[0] == "uint8" else ""
            raise _wrong_kind(file, mode + kind, colours, card)


def read_colour_table(path: str | Path | File) -> np.ndarray | None:
    """Return the RGB colours [N, 3] that a palette file gives its values, uint8; None if it is none.

    Raises:
        DataError: no such file, or not an image.
    """
    with _opened(path) as (file, image, page):
        if not isinstance(image, Image.Image):
            return _palette(image, page)
        with readable(file):
            return np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3) if image.mode in ("P", "PA") else None


def read_size(path: str | Path | File) -> tuple[int, int]:
    """Return (height, width) from the header of an image file, as stored.

    Raises:
        DataError: no such file, or not an image.
    """
    with _opened(path) as (_, image, _):
        return image.height, image.width


def read_orientation(path: str | Path | File) -> int:
    """Return how viewers turn an image, 1..8: see :func:`turned`; 1 is as stored.

    Raises:
        DataError: see :func:`open_image`.
    """
    with open_image(path) as raster:
        return raster.orientation


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels [H, W, ...] as viewers do, by the value 1..8 of the EXIF tag "Orientation"; 1 is as stored."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo :func:`turned`: bring what belongs to a turned image into the grid of its file."""
    return turned(pixels, {6: 8, 8: 6}.get(orientation, orientation))


@contextmanager
def readable(file: File) -> Iterator[None]:
    """Turn what the image libraries raise in the block into an error that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{file} does not exist.") from None
    except PermissionError as error:
        raise DataError(f"{file} may not be read ({error.strerror}); change its permissions.") from None
    except IsADirectoryError:
        raise DataError(f"{file} is a folder, not an image; give the path of a file.") from None
    except UnidentifiedImageError:
        raise DataError(f"{file} is no image file that can be read; replace it by a PNG, JPEG or TIFF.") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{file} is too large to be read at once ({error}); cut it into tiles.") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        # of rasterio's errors, the cause is what GDAL said; Pillow's at the end of a file speak of its own buffers
        too_short = isinstance(error, (EOFError, struct.error))
        reason = "it ends too early" if too_short else str(error.__cause__ or error)
        if any(word in reason.lower() for word in _CODEC_WORDS):
            raise DataError(
                f"{file} cannot be read: it is stored in a way that is not known here ({reason}); "
                "convert it to a GeoTIFF with deflate compression, or a PNG."
            ) from None
        raise DataError(f"{file} cannot be read, it is probably damaged ({reason}); fetch it again.") from None


@contextmanager
def _opened(path: str | Path | File) -> Iterator[tuple[File, Any, tiff.Page | None]]:
    """Open a file: (itself, a Pillow image or a rasterio data set, the page of a TIFF)."""
    file: File = _OnDisk(Path(path)) if isinstance(path, (str, Path)) else path
    with ExitStack() as stack:
        with readable(file):
            stream = stack.enter_context(file.open())
            start = stream.read(32)
            stream.seek(0)
            page, is_tiff = None, start.startswith(tiff.TIFF_STARTS)
            if is_tiff:
                page, remark = tiff.main_page(tiff.pages(stream))
                if remark:
                    _say(file, remark)
            if is_tiff or start.startswith(tiff.JPEG2000_STARTS):
                name = stack.enter_context(file.for_gdal())
                opened: Any = stack.enter_context(tiff.opened(name, page, jpeg2000=not is_tiff))
            else:
                opened = stack.enter_context(pictures.opened(file, stream, start))
        yield file, opened, page


def _palette(dataset: Any, page: tiff.Page | None) -> np.ndarray | None:
    """Return the colours uint8 [N, 3] of a palette; None if values are what they say."""
    # GDAL invents a palette of black and white for every file of one bit
    if dataset.count != 1 or (page is not None and page.photometric != tiff.PALETTE):
        return None
    try:
        entries = dataset.colormap(1)
    except ValueError:  # rasterio's way to say that there is none
        return None
    table = np.zeros((max(entries) + 1 if dataset.dtypes[0] != "uint8" else _BYTE + 1, 3), np.uint8)
    for value, colour in entries.items():
        table[value] = colour[:3]
    return table


_said: set[tuple[str, str]] = set()


def _say(file: File, remark: str) -> None:
    """Say something about a file; of the same things about files of one folder, the first."""
    key = str(Path(str(file)).parent), re.sub(r"\d+", "#", remark)
    if key not in _said:
        _said.add(key)
        _logger.warning("%s %s (said of the first such file in a folder).", file, remark)


def _too_deep(file: File, found: str) -> DataError:
    if found.endswith(" int8"):
        return DataError(f"image {file} stores signed values ({found}); shift them to 0..255 and store them unsigned.")
    return DataError(
        f"image {file} has more than 8 bits per channel ({found}); "
        "scale it to 8-bit RGB first, with one fixed range for the whole data set."
    )


def _wrong_colours(file: File, space: str) -> DataError:
    return DataError(f"image {file} stores its colours as {space}, not as red, green and blue; convert it to RGB.")


def _wrong_kind(file: File, found: str, colours: bool, card: str) -> DataError:
    expected = "RGB colours" if colours else "one integer per pixel"
    if not card:
        return DataError(f"labels {file} have {found}, but {expected} were expected; is it the right file?")
    remedy = (
        "convert them, or describe their integers under labels.ids."
        if colours
        else "convert them to one channel, or describe their colours under labels.colours."
    )
    return DataError(f"labels {file} have {found}, but {card} describes {expected}; {remedy}")
