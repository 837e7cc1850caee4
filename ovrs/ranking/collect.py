"""Streaming class statistics of unit pixel features: all that a channel ranking follows from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from numpy.typing import NDArray

from ovrs.config import ConfigError
from ovrs.data import DatasetCard, Record, read_pair
from ovrs.data.augmentation import resize_image, resize_labels, resized_shape
from ovrs.heads.dr_seg.ranking_file import Floats, Indices, checked_lambda, checked_weighting
from ovrs.ranking.labelled import progress
from ovrs.ranking.tower import FrozenTower
from ovrs.structures import IGNORE_LABEL

SHORTER_SIDE = 384  # of images, before they are squashed to the tower's square
CELL = 16  # side of a grid cell in label pixels: a grid of 24 x 24 reads labels at 384 x 384
LABELLINGS = ("majority", "centre")
_TINY = 1e-12  # lower bound of a norm


@dataclass(frozen=True)
class RankingOptions:
    """How channels are ranked.

    Attributes:
        lam: weight of the entropy's rank in the score, 0..1.
        n_p: prototypes drawn per class; 0 takes every cell, which draws nothing and is the more exact.
        seed: of the draw.
        purity: share of a whole cell that its commonest class must cover, 0..1; other cells are not used.
        weighting: of the inter-class similarity, ``balanced`` or ``pairs``.
        labelling: a cell's label is that of its ``majority``, or of the pixel in its ``centre`` (``purity`` is not
            asked then).

    Raises:
        ConfigError: a value out of range.
        RankingError: likewise, of ``lam`` and ``weighting``.
    """

    lam: float = 0.3
    n_p: int = 0
    seed: int = 0
    purity: float = 0.5
    weighting: str = "balanced"
    labelling: str = "majority"

    def __post_init__(self) -> None:
        checked_lambda(self.lam)
        checked_weighting(self.weighting)
        if self.n_p < 0:
            raise ConfigError(f"prototypes per class (MODEL.DR_SEG.SPSD.N_P) must be 0 (all) or more, got {self.n_p}.")
        if self.seed < 0:
            raise ConfigError(f"the seed of the prototypes must be 0 or more, got {self.seed}.")
        if not 0 <= self.purity <= 1:
            raise ConfigError(f"purity (MODEL.DR_SEG.SPSD.PURITY) must be in 0..1, got {self.purity}.")
        if self.labelling not in LABELLINGS:
            raise ConfigError(f"labelling must be one of {', '.join(LABELLINGS)}, got {self.labelling!r}.")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> RankingOptions:
        """Return what ``MODEL.DR_SEG.SPSD`` says."""
        node = cfg.MODEL.DR_SEG.SPSD
        return cls(lam=node.LAMBDA, n_p=node.N_P, purity=node.PURITY, weighting=node.S_WEIGHTING)


@dataclass(frozen=True)
class ClassStatistics:
    """What :func:`collect` finds.

    Attributes:
        mean: [K, C] mean of the unit features of each class; zeros for a class without prototypes.
        relu_mean: [K, C] the same of their positive part.
        counts: [K] prototypes that the means are over.
        cells: [K] cells that there were.
        channel_rms: [C] root mean square of the features before they were normalised, over all cells.
    """

    mean: Floats
    relu_mean: Floats
    counts: Indices
    cells: Indices
    channel_rms: Floats


class ClassSums:
    """Sums of features over the prototypes of each class, of their positive parts too, in float64."""

    def __init__(self, classes: int, channels: int) -> None:
        self.counts = np.zeros(classes, np.int64)
        self._sums = np.zeros((2, classes, channels))

    def add(self, features: Floats, labels: NDArray[np.integer]) -> None:
        """Add [n, C] features with their [n] classes."""
        for k in np.unique(labels):
            own = features[labels == k]
            self.counts[k] += len(own)
            self._sums[0, k] += own.sum(axis=0)
            self._sums[1, k] += np.maximum(own, 0).sum(axis=0)

    def means(self) -> tuple[Floats, Floats]:
        """Return both [K, C] means, zeros where a class has no prototype."""
        mean, relu_mean = self._sums / np.maximum(self.counts, 1)[:, None]
        return mean, relu_mean


class ClassReservoirs:
    """At most ``size`` features of each class, every one that was seen equally likely to be kept (algorithm R).

    The numbers of a class come from its own PCG64, seeded with (seed, class), so they do not depend on other classes.
    """

    def __init__(self, classes: int, channels: int, size: int, seed: int) -> None:
        self.seen = np.zeros(classes, np.int64)
        self._kept = np.zeros((classes, size, channels))
        self._generators = [np.random.Generator(np.random.PCG64([seed, k])) for k in range(classes)]

    def add(self, features: Floats, labels: NDArray[np.integer]) -> None:
        """Offer [n, C] features with their [n] classes."""
        for k in np.unique(labels):
            own, kept = features[labels == k], self._kept[k]
            free = min(max(len(kept) - self.seen[k], 0), len(own))
            kept[self.seen[k] : self.seen[k] + free] = own[:free]
            late = own[free:]
            bounds = self.seen[k] + free + 1 + np.arange(len(late))  # features seen by then, the offered one included
            slots = self._generators[k].integers(0, bounds)
            taken = slots < len(kept)
            kept[slots[taken]] = late[taken]  # of those that draw the same slot, the last stays
            self.seen[k] += len(own)

    def sums(self) -> ClassSums:
        """Return the sums over what was kept."""
        classes, size, channels = self._kept.shape
        sums = ClassSums(classes, channels)
        for k, count in enumerate(np.minimum(self.seen, size)):
            sums.add(self._kept[k, :count], np.full(count, k))
        return sums


def collect(
    tower: FrozenTower, records: Sequence[Record], card: DatasetCard, options: RankingOptions | None = None
) -> ClassStatistics:
    """Run over a labelled data set once; memory does not grow with the number of images.

    One process, one image at a time, in the order of the records: the result is the same bits in every run on one
    machine.

    Args:
        tower: gives the dense features.
        records: with labels.
        card: of their data set.
        options: default: all of :class:`RankingOptions`.

    Raises:
        DataError: a file that cannot be read.
    """
    options = options or RankingOptions()
    classes = len(card.classes)
    every = ClassSums(classes, tower.channels)
    drawn = ClassReservoirs(classes, tower.channels, options.n_p, options.seed) if options.n_p else None
    squares, seen = np.zeros(tower.channels), 0
    for record in progress(records, "ranking channels"):
        image, labels = read_pair(record["file_name"], record["sem_seg_file_name"], card)
        image = resize_image(image, *resized_shape(*labels.shape, SHORTER_SIDE, 0))
        dense = tower.dense(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
        grid = tuple(dense.shape[-2:])
        features = dense.flatten(1).T.cpu().numpy().astype(np.float64)
        squares += (features**2).sum(axis=0)
        seen += len(features)

        cells = (
            centre_labels(labels, grid) if options.labelling == "centre" else grid_labels(labels, grid, options.purity)
        )
        used = cells.ravel() != IGNORE_LABEL
        units = features[used]
        units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), _TINY)
        every.add(units, cells.ravel()[used])
        if drawn is not None:
            drawn.add(units, cells.ravel()[used])

    prototypes = every if drawn is None else drawn.sums()
    mean, relu_mean = prototypes.means()
    return ClassStatistics(mean, relu_mean, prototypes.counts, every.counts, np.sqrt(squares / max(seen, 1)))


def grid_labels(labels: NDArray[np.uint8], grid: tuple[int, int], purity: float = 0.5) -> NDArray[np.uint8]:
    """Return the label of each cell of a grid: that of its commonest class, if it covers enough of the cell.

    Args:
        labels: [H, W] class indices, 255 ignored; resized (nearest) to 16 pixels per side of a cell.
        grid: (rows, columns).
        purity: share of the whole cell, ignored pixels included, that the class must cover.

    Returns:
        [rows, columns] class indices, 255 where no class covers enough. Of equally common classes the first counts.
    """
    rows, columns = grid
    pixels = resize_labels(labels, rows * CELL, columns * CELL)
    cells = pixels.reshape(rows, CELL, columns, CELL).swapaxes(1, 2).reshape(rows * columns, CELL**2)
    values = IGNORE_LABEL + 1
    slots = np.arange(len(cells))[:, None] * values + cells
    counts = np.bincount(slots.ravel(), minlength=len(cells) * values).reshape(-1, values)[:, :IGNORE_LABEL]
    pure = counts.max(axis=1) >= max(purity * CELL**2, 1)
    return np.where(pure, counts.argmax(axis=1), IGNORE_LABEL).astype(np.uint8).reshape(grid)


def centre_labels(labels: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the label of the pixel in the centre of each cell of a (rows, columns) grid over [H, W] labels."""
    rows, columns = (
        ((np.arange(count) + 0.5) * side / count).astype(int) for count, side in zip(grid, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]
