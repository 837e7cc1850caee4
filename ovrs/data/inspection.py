"""What the labels of a data set hold: pixels and images per class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.data.card import DatasetCard
from ovrs.data.pairing import Record
from ovrs.data.reading import read_labels, read_pair
from ovrs.data.work import progress, usable_cores
from ovrs.errors import DataError, shortened
from ovrs.structures import IGNORE_LABEL

_Item = TypeVar("_Item")

_PROBLEMS = 5  # that are told in words
_PROBLEMS = 5  # that are told in words
_FIRST_LOOK = 16  # files that are looked at first, in search of a labelled pixel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassCounts:
    """Pixels of the label files of a data set.

    Attributes:
        name: of the data set.
        pixels: int64 [T], of each class.
        images: int64 [T], number of images that show a class.
        ignored: number of ignored pixels.
        files: number of label files that were read.
        of_files: number of label files of the data set.
    """

    name: str
    pixels: np.ndarray
    images: np.ndarray
    ignored: int
    files: int
    of_files: int

    def require_labelled(self) -> None:
        """Refuse a data set without a labelled pixel.

        Raises:
            DataError: all pixels are ignored.
        """
        if self.files and not self.pixels.any():
            raise DataError(
                f"data set {self.name} has no labelled pixel: all are ignored in the {self.files} label files that "
                "were read. Check their values against the card."
            )

    @property
    def shares(self) -> np.ndarray:
        """float64 [T] in 0..1, of the pixels that are not ignored; zeros if all are."""
        return self.pixels / max(int(self.pixels.sum()), 1)

    @property
    def ignored_share(self) -> float:
        """Ignored pixels' share of all, in 0..1."""
        return self.ignored / max(int(self.pixels.sum()) + self.ignored, 1)


def count_classes(name: str, sample: int = 0) -> ClassCounts:
    """Read a data set in full and count the pixels of its labels; warn of classes without a single one.

    Args:
        name: a registered name, see :func:`ovrs.data.resolve_datasets`.
        sample: number of pairs to read, evenly spread over the data set; 0 for all.

    Raises:
        DataError: the data set has no labels or cannot be paired; or images or labels cannot be read, or differ in
            size: the message names them all, up to five in words.
    """
    metadata, records = MetadataCatalog.get(name), DatasetCatalog.get(name)
    if not metadata.sem_seg_root:
        raise DataError(f"data set {name} has no labels to count; name a split with labels.")
    chosen = evenly_spread(records, sample) if sample else records
    card: DatasetCard = metadata.card

    def count(record: Record) -> np.ndarray | DataError:
        try:
            _, labels = read_pair(record["file_name"], record["sem_seg_file_name"], card)
        except DataError as error:
            return error
        found = np.bincount(labels.ravel(), minlength=IGNORE_LABEL + 1)
        return found[[*range(len(card.classes)), IGNORE_LABEL]]

    totals, images = np.zeros((2, len(card.classes) + 1), np.int64)
    problems = []
    with ThreadPoolExecutor(usable_cores()) as pool:  # decoding an image leaves Python's lock
        for counts in progress(pool.map(count, chosen), f"reading {name}", len(chosen), "pair"):
            if isinstance(counts, DataError):
                problems.append(counts)
                continue
            totals += counts
            images += counts > 0
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "\n".join(map(str, problems[:_PROBLEMS]))
        raise DataError(
            f"{len(problems)} of {len(chosen)} pairs of {name} cannot be used, the first of them:\n{listed}"
        )
    found = ClassCounts(name, totals[:-1], images[:-1], int(totals[-1]), len(chosen), len(records))
    if missing := [metadata.stuff_classes[index] for index in card.labelled_classes if not found.pixels[index]]:
        logger.warning(
            "%s: no pixel of %s in %d of %d label files. If the data has them, check the label values in %s.",
            name, ", ".join(missing), found.files, found.of_files, card.path,
        )  # fmt: skip
    return found


def require_labelled(name: str, records: Sequence[Record], card: DatasetCard) -> None:
    """Look for a labelled pixel: training on a set without one would show a loss of 0 to the end.

    In a usable set the first file, or the first few, settle it; files are looked at evenly spread over the set.

    Args:
        name: of the data set, for messages.
        records: its images with labels.
        card: says how labels are read.

    Raises:
        DataError: all pixels of all files are ignored, or labels cannot be read.
    """
    first = evenly_spread(records, _FIRST_LOOK)
    seen = {record["sem_seg_file_name"] for record in first}
    rest = [record for record in records if record["sem_seg_file_name"] not in seen]
    for record in [*first, *rest]:
        if (read_labels(record["sem_seg_file_name"], card) != IGNORE_LABEL).any():
            return
    files = [record["sem_seg_file_name"] for record in records]
    raise DataError(
        f"data set {name} has no labelled pixel: all are ignored in its {len(files)} label files, {shortened(files)}. "
        f"Check the values of the files against {card.path}."
    )


def evenly_spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return ``count`` items, the first and the last among them if there is room, or all if there are fewer.

    Examples:
        >>> evenly_spread("abcdefg", 3)
        ['a', 'd', 'g']
    """
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]
