"""What the labels of a data set hold: pixels and images per class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from ovrs.data.card import DatasetCard
from ovrs.data.errors import DataError
from ovrs.data.pairing import Record
from ovrs.data.reading import read_labels
from ovrs.structures import IGNORE_LABEL

_Item = TypeVar("_Item")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassCounts:
    """Pixels of the label files of a data set.

    Attributes:
        pixels: int64 [T], of each class.
        images: int64 [T], number of images that show a class.
        ignored: number of ignored pixels.
        files: number of label files that were read.
        of_files: number of label files of the data set.
    """

    pixels: np.ndarray
    images: np.ndarray
    ignored: int
    files: int
    of_files: int

    @property
    def shares(self) -> np.ndarray:
        """float64 [T] in 0..1, of the pixels that are not ignored; zeros if all are."""
        return self.pixels / max(int(self.pixels.sum()), 1)

    @property
    def ignored_share(self) -> float:
        """Ignored pixels' share of all, in 0..1."""
        return self.ignored / max(int(self.pixels.sum()) + self.ignored, 1)


def count_classes(name: str, sample: int = 0) -> ClassCounts:
    """Read the labels of a data set and count their pixels; warn of classes without a single one.

    Args:
        name: a registered name, see :func:`ovrs.data.resolve_datasets`.
        sample: number of label files to read, evenly spread over the data set; 0 for all.

    Raises:
        DataError: the data set has no labels or cannot be paired, or a label file cannot be read.
    """
    metadata, records = MetadataCatalog.get(name), DatasetCatalog.get(name)
    if not metadata.sem_seg_root:
        raise DataError(f"data set {name} has no labels to count; name a split with labels.")
    chosen = evenly_spread(records, sample) if sample else records
    card: DatasetCard = metadata.card

    def count(record: Record) -> np.ndarray:
        found = np.bincount(read_labels(record["sem_seg_file_name"], card).ravel(), minlength=IGNORE_LABEL + 1)
        return found[[*range(len(card.classes)), IGNORE_LABEL]]

    totals, images = np.zeros((2, len(card.classes) + 1), np.int64)
    with ThreadPoolExecutor() as pool:  # decoding an image leaves Python's lock
        for counts in tqdm(pool.map(count, chosen), total=len(chosen), desc=f"reading labels of {name}", unit="file"):
            totals += counts
            images += counts > 0
    found = ClassCounts(totals[:-1], images[:-1], int(totals[-1]), len(chosen), len(records))
    if missing := [metadata.stuff_classes[index] for index in card.labelled_classes if not found.pixels[index]]:
        logger.warning(
            "%s: no pixel of %s in %d of %d label files. If the data has them, check the label values in %s.",
            name, ", ".join(missing), found.files, found.of_files, card.path,
        )  # fmt: skip
    return found


def evenly_spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return ``count`` items, the first and the last among them if there is room, or all if there are fewer.

    Examples:
        >>> evenly_spread("abcdefg", 3)
        ['a', 'd', 'g']
    """
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]
