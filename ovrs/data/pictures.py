"""Pictures through Pillow (PNG, JPEG and others), with what Pillow does to them for display undone."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile
from torchvision.io import decode_png

from ovrs.errors import DataError

IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
ID_MODES = ("1", "L", "LA", "P", "PA", "I", "I;16", "I;16L", "I;16B")
COLOUR_MODES = ("P", "RGB", "RGBA")

_BYTE = 255
_EXIF_ORIENTATION = 0x0112
# How files start that are taken for images now and then.
_FOREIGN = {
    b"\x89HDF": "an HDF5 container (NetCDF-4, MATLAB 7.3); export the bands that are red, green and blue as a GeoTIFF",
    b"CDF": "a NetCDF container; export the bands that are red, green and blue as a GeoTIFF",
    b"GRIB": "a GRIB file; export the bands that are red, green and blue as a GeoTIFF",
    b"SIMPLE  =": "a FITS file; convert it to a GeoTIFF or PNG",
    b"\x93NUMPY": "a NumPy array; save it as a PNG or TIFF",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x1f\x8b": "a gzip file; unpack it",
    b"%PDF": "a PDF document; export the page as a PNG",
    b"version https://git-lfs": "the pointer of a file in git-lfs, not the file; fetch it with: git lfs pull",
    b"<!doctype html": "a web page, mostly a login or error page; fetch the file again",
    b"<html": "a web page, mostly a login or error page; fetch the file again",
}


def opened(name: object, stream: BinaryIO, start: bytes) -> Image.Image:
    """Open a picture; its pixels are decoded when they are first asked for.

    Args:
        name: how messages call it.
        stream: the file.
        start: its first bytes.

    Raises:
        DataError: it is something else, which is named.
        Exception: what Pillow raises.
    """
    for beginning, what in _FOREIGN.items():
        if start.lstrip().lower().startswith(beginning.lower()):
            raise DataError(f"{name} is no image but {what}.")
    with warnings.catch_warnings():
        # Pillow warns from 89 million pixels on and refuses from twice that; large tiles are usual here
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(stream)
    if isinstance(image, ImageFile.StubImageFile):
        raise DataError(f"{name} is a {image.format} file, which is not read; convert it to a PNG or TIFF.")
    return image


def _raw_mode(image: Image.Image) -> tuple[str, str, int]:
    """Return (decoder, raw mode, largest value of a PPM file) of a picture that is not decoded yet."""
    codec, _, _, arguments = image.tile[0] if image.tile else ("", (), 0, ())
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    top = arguments[1] if codec.startswith("ppm") and len(arguments) > 1 else 0
    return codec, str(arguments[0]) if arguments else "", top


def is_deep(image: Image.Image) -> bool:
    """Whether a colour picture stores more than 8 bits per channel; Pillow cuts them down without a word."""
    _, raw, top = _raw_mode(image)
    return bool(re.search(r"(?<!BGR);16", raw)) or (image.mode == "RGB" and top > _BYTE)


def undo_of(image: Image.Image) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what gives the stored values back where Pillow changes them for display, else None.

    It spreads greys of 2 and 4 bits over 0..255 and those of PGM and PPM files by their largest value, and inverts
    bits whose black is 1 (PBM).
    """
    _, raw, top = _raw_mode(image)
    if bits := re.fullmatch(r"L;([24])", raw):
        return lambda values: values // (_BYTE // (2 ** int(bits[1]) - 1))
    if image.mode == "1" and raw.endswith(";I"):
        return np.logical_not
    full = (1 << 16) - 1 if image.mode == "I" else _BYTE
    if top and top != full:
        return lambda values: np.rint(values * (top / full)).astype(values.dtype)
    return None


def as_rgb(image: Image.Image) -> np.ndarray:
    """Decode as uint8 [H, W, 3]; bits become 0 and 255, alpha is dropped."""
    undo = undo_of(image)  # before decoding, which forgets how the file is stored
    if image.mode == "1":
        bits = np.asarray(image) if undo is None else undo(np.asarray(image))
        return np.repeat(bits[..., None] * np.uint8(_BYTE), 3, axis=-1)
    if image.mode in ("RGB", "RGBA") and (bands := _of_png(image)) is not None:
        return np.ascontiguousarray(bands[..., :3])
    colours = np.array(image.convert("RGB"))
    return colours if undo is None else undo(colours)


def as_ids(image: Image.Image) -> np.ndarray:
    """Decode as integers [H, W]; of a palette the indices."""
    if image.mode == "L" and (bands := _of_png(image)) is not None:
        return bands[..., 0]
    undo = undo_of(image)
    ids = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image)
    ids = ids if undo is None else undo(ids)
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def _of_png(image: Image.Image) -> np.ndarray | None:
    """Decode a PNG file of 8-bit greys or colours by libpng, which takes three quarters of Pillow's time.

    Returns:
        uint8 [H, W, bands]; None for all other files, and for those that libpng refuses: Pillow may read them, or say
        what is wrong with them.
    """
    if image.format != "PNG" or _raw_mode(image)[1] != image.mode or "transparency" in image.info:
        return None
    image.fp.seek(0)
    try:
        bands = decode_png(torch.frombuffer(bytearray(image.fp.read()), dtype=torch.uint8))
    except RuntimeError:
        return None
    return bands.numpy().transpose(1, 2, 0)


def orientation_of(image: Image.Image) -> int:
    """Return the value 1..8 of the EXIF orientation; 1 where there is none."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a damaged tag, of which every library makes another error, does not make a damaged image
        return 1
    return value if value in range(1, 9) else 1
