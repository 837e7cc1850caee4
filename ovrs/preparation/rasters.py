"""Reading images and label rasters out of a source, row by row where the format allows.

TIFFs are read through rasterio, a band of rows at a time. PNG and JPEG files cannot be entered in the middle:
they are decoded once. Whatever is wrong with a file is said with its name.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from ovrs.data.errors import DataError
from ovrs.preparation.sources import Member

RGB = (1, 2, 3)

_TIFF = (".tif", ".tiff")
_IN_MEMORY = 64 << 20  # packed TIFFs up to this size are unpacked in memory; larger ones are entered through GDAL
_IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_ID_MODES = ("1", "L", "LA", "P", "PA", "I", "I;16", "I;16B")
_COLOUR_MODES = ("P", "RGB", "RGBA")


class Raster(Protocol):
    """An opened file.

    Attributes:
        height: rows.
        width: columns.
        is_plain: a PNG or JPEG file that is 8-bit RGB as it is, so that nothing is lost by copying it.
    """

    height: int
    width: int
    is_plain: bool

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """Return the rows top..bottom-1, [rows, width] or [rows, width, 3]."""


class _Picture:
    """A PNG or JPEG file, decoded at the first touch."""

    def __init__(self, member: Member, image: Image.Image, converted: Any) -> None:
        self._member, self._image, self._converted = member, image, converted
        self.width, self.height = image.size
        self.is_plain = image.mode == "RGB"
        self._pixels: np.ndarray | None = None

    def rows(self, top: int, bottom: int) -> np.ndarray:
        if self._pixels is None:
            with readable(self._member):
                self._pixels = np.asarray(self._converted(self._image))
        return self._pixels[top:bottom]


class _Bands:
    """A TIFF file."""

    def __init__(self, member: Member, dataset: Any, indexes: int | list[int]) -> None:
        self._member, self._dataset, self._indexes = member, dataset, indexes
        self.width, self.height = dataset.width, dataset.height
        self.is_plain = False

    def rows(self, top: int, bottom: int) -> np.ndarray:
        with readable(self._member):
            pixels = self._dataset.read(self._indexes, window=((top, bottom), (0, self.width)))
        return pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1)


@contextmanager
def open_image(member: Member, bands: Sequence[int] = RGB) -> Iterator[Raster]:
    """Open an image as 8-bit RGB: grey is repeated, palettes are resolved, alpha is dropped.

    Args:
        member: the file.
        bands: of TIFFs with three or more bands, the ones that are red, green and blue, from 1.

    Raises:
        DataError: damaged, not an image, or not of 8 bits per channel.
    """
    if member.suffix in _TIFF:
        with _opened_tiff(member) as dataset:
            if dataset.count in (1, 2):  # grey, grey and alpha
                bands = (1, 1, 1)
            if max(bands) > dataset.count or any(dataset.dtypes[band - 1] != "uint8" for band in bands):
                raise DataError(
                    f"image {member} has {dataset.count} bands of type {dataset.dtypes[0]}; "
                    f"the bands {', '.join(map(str, bands))} of 8 bits each were expected. Is it the right file?"
                )
            yield _Bands(member, dataset, list(bands))
        return
    with _opened_picture(member) as image:
        # PIL cuts 16-bit colour down to its high byte without a word; only the raw mode tells
        if image.mode not in _IMAGE_MODES or any(";16" in str(tile[3]) for tile in image.tile):
            raise DataError(
                f"image {member} has the mode {image.mode}; 8 bits per channel were expected. Is it the right file?"
            )
        yield _Picture(member, image, lambda opened: opened.convert("RGB"))


@contextmanager
def open_labels(member: Member, *, colours: bool) -> Iterator[Raster]:
    """Open a label raster: RGB colours [rows, width, 3], or ids [rows, width].

    The ids of a palette file are its indices, not what its palette paints; alpha is dropped.

    Args:
        member: the file.
        colours: whether classes are coded as colours.

    Raises:
        DataError: damaged, or of the other kind.
    """
    if member.suffix in _TIFF:
        with _opened_tiff(member) as dataset:
            if colours and (dataset.count not in (3, 4) or set(dataset.dtypes[:3]) != {"uint8"}):
                raise _wrong_kind(member, f"{dataset.count} band(s) of type {dataset.dtypes[0]}", colours)
            if not colours and (dataset.count != 1 or not np.issubdtype(dataset.dtypes[0], np.integer)):
                raise _wrong_kind(member, f"{dataset.count} band(s) of type {dataset.dtypes[0]}", colours)
            yield _Bands(member, dataset, list(RGB) if colours else 1)
        return
    with _opened_picture(member) as image:
        if image.mode not in (_COLOUR_MODES if colours else _ID_MODES):
            raise _wrong_kind(member, f"the mode {image.mode}", colours)
        yield _Picture(member, image, _as_colours if colours else _as_ids)


def read_size(member: Member) -> tuple[int, int]:
    """Return (height, width) from the header of an image.

    Raises:
        DataError: damaged, or not an image.
    """
    if member.suffix in _TIFF:
        with _opened_tiff(member) as dataset:
            return dataset.height, dataset.width
    with _opened_picture(member) as image:
        return image.height, image.width


@contextmanager
def readable(member: Member) -> Iterator[None]:
    """Turn what the image libraries raise in the block into an error that names the file."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{member} is no image that can be read; fetch it again.") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{member} is too large for a PNG or JPEG file ({error}); is it the right file?") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise DataError(f"{member} cannot be read, it is probably damaged ({error}); fetch it again.") from None


@contextmanager
def _opened_picture(member: Member) -> Iterator[Image.Image]:
    with member.open() as stream:
        with readable(member), warnings.catch_warnings():
            # PIL warns from 89 million pixels on and refuses from twice that; large scenes are usual here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(stream)
        with image:
            yield image


@contextmanager
def _opened_tiff(member: Member) -> Iterator[Any]:
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    except ImportError:
        raise DataError(f"{member} is a TIFF, which needs rasterio: pip install ovrs[raster]") from None
    with ExitStack() as stack:
        # no search for companion files: it lists the whole folder or archive for every single TIFF
        stack.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"))
        with readable(member), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            if member.entry is not None and member.size <= _IN_MEMORY:
                memory = stack.enter_context(rasterio.MemoryFile(member.read()))
                dataset = stack.enter_context(memory.open())
            else:
                dataset = stack.enter_context(rasterio.open(member.gdal_path))
        yield dataset


def _as_colours(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _as_ids(image: Image.Image) -> Image.Image:
    if image.mode == "1":
        return image.convert("L").point(lambda value: value and 1)
    return image.getchannel(0) if image.mode in ("LA", "PA") else image


def _wrong_kind(member: Member, found: str, colours: bool) -> DataError:
    expected = "RGB colours" if colours else "one integer per pixel"
    return DataError(f"labels {member} have {found}, but {expected} were expected; is it the right file?")
