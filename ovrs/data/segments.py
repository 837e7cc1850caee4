"""Segments of label maps: how many a class has, how large they are and where in the image they lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from ovrs.data.inspection import evenly_spread
from ovrs.data.reading import read_labels
from ovrs.errors import DataError

_NEIGHBOURS = 8
_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class ClassSegments:
    """The connected regions of one class over all label maps, diagonal neighbours included.

    Attributes:
        sizes: int64 [S], pixels of each.
        centres: float64 [S, 2], the centre of gravity of each, x and y, 0..1 from the left and top edges.
        images: number of label maps that show the class.
    """

    sizes: np.ndarray
    centres: np.ndarray
    images: int

    @property
    def pixels(self) -> int:
        """Pixels of the class."""
        return int(self.sizes.sum())

    @property
    def size_quantiles(self) -> tuple[float, ...]:
        """The 10 %, 50 % and 90 % quantiles of the segments' sizes, in pixels; NaN without segments."""
        return tuple(np.quantile(self.sizes, _QUANTILES).tolist()) if len(self.sizes) else (np.nan,) * len(_QUANTILES)

    @property
    def centre(self) -> tuple[float, float]:
        """Mean x and y of the class's pixels, 0..1; NaN without pixels."""
        return tuple(np.average(self.centres, axis=0, weights=self.sizes)) if len(self.sizes) else (np.nan, np.nan)

    @property
    def spread(self) -> tuple[float, float]:
        """Standard deviation of the segments' centres in x and y, 0..0.5; of evenly spread points it is 0.29."""
        return tuple(self.centres.std(axis=0)) if len(self.sizes) else (np.nan, np.nan)


def segments_of(name: str, sample: int = 0) -> tuple[list[ClassSegments], int]:
    """Read the labels of a data set and return the segments of every class, and how many files were read.

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
    files = tqdm([record["sem_seg_file_name"] for record in chosen], desc=f"reading labels of {name}", unit="file")
    return class_segments((read_labels(file, metadata.card) for file in files), len(metadata.stuff_classes)), len(
        chosen
    )


def class_segments(label_maps: Iterable[np.ndarray], num_classes: int) -> list[ClassSegments]:
    """Return the segments of every class.

    Args:
        label_maps: uint8 [H, W], class index 0..T-1; other values (255, ignored) are left out.
        num_classes: ``T``.
    """
    sizes: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    centres: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    for labels in label_maps:
        extent = np.array(labels.shape[::-1], float)
        for index in np.unique(labels[labels < num_classes]).tolist():
            mask = (labels == index).astype(np.uint8)
            _, _, facts, centroids = cv2.connectedComponentsWithStats(mask, connectivity=_NEIGHBOURS)
            sizes[index].append(facts[1:, cv2.CC_STAT_AREA].astype(np.int64))  # the first is the background
            centres[index].append((centroids[1:] + 0.5) / extent)
    return [
        ClassSegments(
            np.concatenate(size) if size else np.zeros(0, np.int64),
            np.concatenate(centre) if centre else np.zeros((0, 2)),
            len(size),
        )
        for size, centre in zip(sizes, centres, strict=True)
    ]
