"""What a server takes, and how it says no."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ovrs.errors import DataError, UserError, VocabularyError
from ovrs.raster.opening import opened

MIB = 1 << 20
_BYTES_PER_PIXEL = 64  # of all bands of an upload, and of one of its blocks per pixel of the limit
_LONGEST_CLASS = 200  # characters, synonyms included

# How files start that are taken. By content, not by name: a VRT, whatever it is called, leads to other files.
_KINDS = {
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"II+\0": "tif",
    b"MM\0+": "tif",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jp2",
    b"\xffO\xffQ": "jp2",
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpg",
}


class Busy(UserError):
    """More people wait than the server lets wait."""

    status = 503  # of HTTP


class Gone(UserError):
    """A map that is not there, or not any more."""

    status = 404  # of HTTP


class TooLarge(UserError):
    """More than the server takes."""

    status = 413  # of HTTP


@dataclass(frozen=True)
class Limits:
    """What one server takes.

    Attributes:
        megabytes: size of an uploaded file.
        megapixels: size of an image; read from its header, before anything is decoded.
        classes: of a map.
        waiting: requests that may wait for the model; further ones are refused.
        sessions: images that are kept; the one that was not used for the longest time goes first.
        idle: seconds after which an image that nobody asks about is forgotten.
        memory: MiB that the features of an image may take; what does not fit is computed again for every answer.
    """

    megabytes: float = 200
    megapixels: float = 25
    classes: int = 100
    waiting: int = 8
    sessions: int = 4
    idle: float = 3600
    memory: float = 1024

    @property
    def bytes(self) -> int:
        """Largest upload in bytes."""
        return int(self.megabytes * MIB)

    @property
    def pixels(self) -> int:
        """Largest image in pixels."""
        return int(self.megapixels * 1e6)

    def check_bytes(self, count: int) -> None:
        """Raise ``TooLarge`` for an upload of so many bytes."""
        if count > self.bytes:
            raise TooLarge(f"the file is larger than {self.megabytes:g} MiB; upload a part, or use ovrs predict.")

    def check_classes(self, classes: list[str]) -> None:
        """Raise a ``VocabularyError`` for more or longer class strings than are taken."""
        if len(classes) > self.classes:
            raise VocabularyError(f"{len(classes)} classes are more than {self.classes}; leave some out.")
        if long := [text for text in classes if len(text) > _LONGEST_CLASS]:
            raise VocabularyError(f"the class {long[0][:40]!r}... is longer than {_LONGEST_CLASS} characters.")

    def check_header(self, path: Path) -> None:
        """Look at the header of an upload.

        Raises:
            TooLarge: too many pixels or bands.
            DataError: it cannot be read.
        """
        name = path.name
        with opened(str(path)) as dataset:
            if (pixels := dataset.width * dataset.height) > self.pixels:
                raise TooLarge(
                    f"{name} has {pixels / 1e6:.3g} megapixels, more than {self.megapixels:g}; upload a part, or use "
                    "ovrs predict, which takes rasters of any size."
                )
            sizes = [_item_size(dtype) for dtype in dataset.dtypes]
            # One block is decoded at once, whatever part of it the image needs.
            blocks = [math.prod(shape) * size for shape, size in zip(dataset.block_shapes, sizes, strict=True)]
            if pixels * sum(sizes) > self.pixels * _BYTES_PER_PIXEL or sum(blocks) > self.pixels * _BYTES_PER_PIXEL:
                raise TooLarge(f"{name} has {dataset.count} bands, too many to decode here; upload those to be seen.")


def kind_of(path: Path, name: str) -> str:
    """Return the ending that fits a file's content.

    Raises:
        DataError: none of the kinds that are taken.
    """
    with open(path, "rb") as stream:
        start = stream.read(16)
    for beginning, kind in _KINDS.items():
        if start.startswith(beginning):
            return kind
    raise DataError(f"{name} is no GeoTIFF, JPEG 2000, PNG or JPEG file; convert it to one of these.")


def _item_size(dtype: str) -> int:
    import numpy as np

    return np.dtype(dtype).itemsize
