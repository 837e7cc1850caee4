"""TIFF and JPEG 2000 files through GDAL (rasterio): what is stored, not what a viewer would show.

GDAL neither inverts masks whose white is 0, nor spreads values of a few bits over 0..255, nor divides colours by what
a file calls alpha. What it does convert, and which of several pages it would take, is settled here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG2000_STARTS = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_BIG = b"+"
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_ORIENTATION, _SAMPLES, _EXTRA_SAMPLES, _GEO_KEYS = 274, 277, 338, 34735
_MODEL_TYPE, _ON_EARTH = 1024, (1, 2, 3)  # a GeoTIFF key, and its values projected, geographic and geocentric
_REDUCED, _MASK = 1, 4  # bits of the subfile type
MIN_IS_WHITE, PALETTE, CMYK, YCBCR = 0, 3, 5, 6  # values of the photometric tag
COLOUR_SPACES = {CMYK: "CMYK", 8: "LAB", 9: "LAB", 10: "LAB", 32844: "LogL", 32845: "LogLuv"}  # not RGB


@dataclass(frozen=True)
class Page:
    """What the header of a TIFF says of one of its pages.

    Attributes:
        number: from 1.
        height, width: pixels.
        kind: bits of the subfile type; 1 a smaller copy, 4 a mask.
        bits: per sample.
        photometric: what the samples mean, see the constants of this module; -1 if it is not said.
        samples: number of bands.
        extra: what the bands behind the colours are: 0 anything, 1 and 2 alpha.
        orientation: 1..8, see :func:`ovrs.data.rasters.turned`.
        names_crs: whether GeoTIFF keys name a coordinate reference system of the earth, readable or not.
    """

    number: int
    height: int
    width: int
    kind: int
    bits: int
    photometric: int
    samples: int
    extra: tuple[int, ...]
    orientation: int
    names_crs: bool


def pages(stream: BinaryIO) -> list[Page]:
    """Read the headers of all pages; of a file whose headers are damaged, those that could be read."""
    found: list[Page] = []
    try:
        start = stream.read(8)
        if _BIG in start[2:4]:
            start += stream.read(8)
        tags = ImageFileDirectory_v2(start)
        seen = set()
        while tags.next and tags.next not in seen:
            seen.add(tags.next)
            stream.seek(tags.next)
            tags.load(stream)
            keys = tags.get(_GEO_KEYS) or ()  # shorts: a head of four, then (key, where, count, value) each
            found.append(
                Page(
                    number=len(found) + 1,
                    height=int(tags[_HEIGHT]),
                    width=int(tags[_WIDTH]),
                    kind=tags.get(_SUBFILE_TYPE) or 0,
                    bits=max(tags.get(_BITS) or (1,)),
                    photometric=tags.get(_PHOTOMETRIC, -1),
                    samples=tags.get(_SAMPLES) or 1,
                    extra=tuple(tags.get(_EXTRA_SAMPLES) or ()),
                    orientation=tags.get(_ORIENTATION) or 1,
                    names_crs=dict(zip(keys[4::4], keys[7::4], strict=False)).get(_MODEL_TYPE) in _ON_EARTH,
                )
            )
    except Exception:  # whatever a damaged header makes Pillow raise: GDAL has the last word about the file
        pass
    return found


def main_page(found: list[Page]) -> tuple[Page | None, str]:
    """Return the page that is read, the largest (of equals the first), and what to say if others might be meant."""
    images = [page for page in found if not page.kind & _MASK]
    if not images:
        return None, ""
    page = max(images, key=lambda page: page.height * page.width)
    others = [other for other in images if other is not page and not (page.number == 1 and other.kind & _REDUCED)]
    if not others:
        return page, ""
    return page, (
        f"has {len(images)} pages; page {page.number} of {page.width} x {page.height} pixels (width x height) is read, "
        "the largest"
    )


@contextmanager
def opened(path: str, page: Page | None, jpeg2000: bool = False) -> Iterator[Any]:
    """Open with rasterio.

    Args:
        path: a name that GDAL understands.
        page: which page; None for GDAL's choice.
        jpeg2000: another format than TIFF.

    Yields:
        The rasterio data set.

    Raises:
        rasterio.errors.RasterioIOError: GDAL cannot open it.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    name = path if page is None or page.number == 1 else f"GTIFF_DIR:{page.number}:{path}"
    # no search for companion files: it lists the whole folder or archive for every single TIFF
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(name, driver=None if jpeg2000 else "GTiff")
        with dataset:
            yield dataset
