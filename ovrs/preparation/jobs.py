"""Jobs: the units of work that a recipe plans and worker processes carry out, and what they leave on disk."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from ovrs.data.card import DatasetCard
from ovrs.data.rasters import RGB, Raster, open_image, read_size
from ovrs.errors import DataError
from ovrs.files import replacing
from ovrs.preparation.labels import OriginalLabels, ignored_id
from ovrs.preparation.sources import Member
from ovrs.preparation.tiling import Tiling, Window

_JPEG_QUALITY = 95
_FORMATS = {
    ".png": ("PNG", {"compress_level": 4}),  # 6, the default, takes twice the time for 2 % of the size
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".jpg": ("JPEG", {"quality": _JPEG_QUALITY, "subsampling": 0}),
}
# Bytes per pixel that aerial images and their labels take, rather too many.
_BYTES_PER_PIXEL = {".png": 2.5, ".tif": 3.2, ".jpg": 1.0}
_LABEL_BYTES_PER_PIXEL = 0.1


@dataclass
class JobResult:
    """What a finished job has left, as the manifest records it.

    Attributes:
        stem: name of the job.
        splits: the splits that its files belong to.
        sources: name and size of each file it was made from.
        pairs: images with labels, per split.
        values: {stored id: pixels}, per split.
        files: {path relative to the output: (bytes, SHA-256)}.
    """

    stem: str
    splits: tuple[str, ...]
    sources: tuple[tuple[str, int], ...]
    pairs: int = 0
    values: dict[int, int] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)


class Job(ABC):
    """Work on one original image. Jobs are picklable, know nothing of each other, and can be run again.

    Attributes:
        stem: name of the job within its card; what it writes starts with it.
        splits: the splits of the card that get its files. The first gets files, the others hard links.
    """

    stem: str
    splits: tuple[str, ...]

    @property
    @abstractmethod
    def members(self) -> tuple[Member, ...]:
        """What is read."""

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        """Name, without folders, and size of each member: what tells whether a finished job is up to date."""
        return tuple((member.name.rpartition("/")[2], member.size) for member in self.members)

    @abstractmethod
    def estimate(self, card: DatasetCard) -> tuple[int, int]:
        """Return (pairs per split, bytes on disk), both rather too large. May open headers."""

    @abstractmethod
    def run(self, card: DatasetCard, out: Path) -> JobResult:
        """Write the files, each in full or not at all.

        Raises:
            DataError: something is wrong with the original; the message names it.
        """


@dataclass(frozen=True)
class PairJob(Job):
    """An image and its labels: cut into windows or whole, labels re-coded, files in the card's formats.

    Windows are called ``<stem>_<top>_<bottom>_<left>_<right>``. Where a window reaches beyond the image, the
    image is 0 and the labels are ignored there. An untouched image of the right format is copied byte by byte.

    Attributes:
        stem: see :class:`Job`; the name of the files where nothing is cut.
        splits: see :class:`Job`.
        image: the image.
        labels: its labels, of the same size.
        encoding: how the labels become stored ids.
        tiling: None keeps the image whole.
        bands: of TIFFs, the bands that are red, green and blue.
        keep_empty: False leaves out windows in which every pixel is ignored.
    """

    stem: str
    splits: tuple[str, ...]
    image: Member
    labels: Member
    encoding: OriginalLabels
    tiling: Tiling | None = None
    bands: tuple[int, int, int] = RGB
    keep_empty: bool = True

    @property
    def members(self) -> tuple[Member, ...]:
        """The image and its labels."""
        return self.image, self.labels

    def estimate(self, card: DatasetCard) -> tuple[int, int]:
        """Count the windows; with ``keep_empty`` off, some of them may be left out later."""
        height, width = read_size(self.image)
        windows = self.windows(height, width)
        pixels = sum((w.bottom - w.top) * (w.right - w.left) for w in windows)
        suffix = format_of(card.splits[self.splits[0]].image_suffix)
        return len(windows), int(pixels * (_BYTES_PER_PIXEL[suffix] + _LABEL_BYTES_PER_PIXEL))

    def run(self, card: DatasetCard, out: Path) -> JobResult:
        """Write the windows, after the labels were read in full: what they hide shows before anything is written."""
        writer = PairWriter(card, out, self)
        stored = self.encoding.read(self.labels)
        ignored = ignored_id(card)
        with open_image(self.image, self.bands) as image:
            self.require_same_size(image, stored)
            copied = self.tiling is None and image.is_plain and self.image.suffix == writer.image_suffix
            names = self.windows(*stored.shape)
            for window, pixels in _cut(image, names):
                labels = _padded(stored[window.top : window.bottom, window.left : window.right], window, ignored)
                if self.keep_empty or (labels != ignored).any():
                    writer.write(names[window], self.image.read() if copied else pixels, labels)
        return writer.result

    def require_same_size(self, image: Raster, labels: np.ndarray) -> None:
        """Refuse an image whose labels, [H, W], have another size.

        Raises:
            DataError: they have.
        """
        if labels.shape != (image.height, image.width):
            raise DataError(
                f"{self.image} is {image.width} x {image.height} (width x height), but its labels {self.labels} "
                f"are {labels.shape[1]} x {labels.shape[0]}; replace the one that is wrong."
            )

    def windows(self, height: int, width: int) -> dict[Window, str]:
        """Return the windows over an image of this size, row by row, with the stems of their files.

        Raises:
            DataError: the image is not of a size that the windows fit.
        """
        if self.tiling is None:
            return {Window(0, height, 0, width): self.stem}
        try:
            windows = self.tiling.windows(height, width)
        except ValueError as error:
            raise DataError(
                f"{self.image} is {width} x {height} (width x height): {error}. Is it the original?"
            ) from None
        return {window: "_".join(map(str, (self.stem, *window))) for window in windows}


class PairWriter:
    """Writes the pairs of one job and keeps account of them.

    Args:
        card: says which folders and formats.
        out: what the card's folders start from.
        job: whose files these are.
    """

    def __init__(self, card: DatasetCard, out: Path, job: Job) -> None:
        self._splits = [card.splits[name] for name in job.splits]
        self._out, self._job = out, job
        self.image_suffix = format_of(self._splits[0].image_suffix)
        self.result = JobResult(job.stem, job.splits, job.sources)

    def write(self, stem: str, image: np.ndarray | bytes, labels: np.ndarray) -> None:
        """Write a pair into every split of the job.

        Args:
            stem: name of both files, without ending.
            image: uint8 [H, W, 3], or the bytes of a file in the card's format.
            labels: uint8 [H, W], stored ids.
        """
        first = self._splits[0]
        content = image if isinstance(image, bytes) else encoded(image, self.image_suffix)
        self._store(content, [f"{split.images}/{stem}{split.image_suffix}" for split in self._splits])
        content = encoded(labels, format_of(first.label_suffix))
        self._store(content, [f"{split.labels}/{stem}{split.label_suffix}" for split in self._splits])
        self.result.pairs += 1
        values = Counter(self.result.values)
        values.update(pixels_per_id(labels))
        self.result.values = dict(sorted(values.items()))

    def _store(self, content: bytes, paths: list[str]) -> None:
        entry = len(content), hashlib.sha256(content).hexdigest()
        with replacing(self._out / paths[0]) as temporary:
            temporary.write_bytes(content)
        for path in paths[1:]:
            with replacing(self._out / path) as temporary:
                link_or_copy(self._out / paths[0], temporary)
        self.result.files.update(dict.fromkeys(paths, entry))


def pixels_per_id(labels: np.ndarray) -> dict[int, int]:
    """Return {id: pixels} of uint8 labels, for the ids that occur."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def format_of(suffix: str) -> str:
    """Return the file format's ending in lower case: ".jpg" for ".JPG", ".png" for "_mask.png".

    Raises:
        DataError: a format that is not written here.
    """
    ending = "." + suffix.rpartition(".")[2].lower()
    if ending not in _FORMATS:
        raise DataError(
            f"files ending with {suffix!r} cannot be written; the card must say one of {', '.join(_FORMATS)}."
        )
    return ending


def encoded(pixels: np.ndarray, suffix: str) -> bytes:
    """Return the bytes of an image file of the kind that ``suffix`` says."""
    name, options = _FORMATS[suffix]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, name, **options)
    return stream.getvalue()


def _cut(image: Raster, windows: Iterable[Window]) -> Iterator[tuple[Window, np.ndarray]]:
    """Yield the windows with their pixels; every row of windows is read once."""
    for (top, bottom), row in groupby(windows, lambda window: window[:2]):
        band = image.rows(top, min(bottom, image.height))
        for window in row:
            yield window, _padded(band[:, window.left : window.right], window, 0)


def _padded(pixels: np.ndarray, window: Window, fill: int) -> np.ndarray:
    """Return the pixels of a window, filled up where it reaches beyond the image."""
    below = window.bottom - window.top - pixels.shape[0]
    right = window.right - window.left - pixels.shape[1]
    if not below and not right:
        return pixels
    return np.pad(pixels, ((0, below), (0, right), *((0, 0),) * (pixels.ndim - 2)), constant_values=fill)


def link_or_copy(existing: Path, new: Path) -> None:
    """Give a file a second name, or copy it where the file system knows no hard links."""
    try:
        os.link(existing, new)
    except OSError:
        shutil.copyfile(existing, new)
