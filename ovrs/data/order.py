"""The endless order in which training shows its images: a pure function of the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ovrs.config import ConfigError

# Independent streams of random numbers from one seed.
ORDER_STREAM, SAMPLE_STREAM, SET_STREAM, VIEW_STREAM = 0, 1, 2, 3


def numbered_generator(seed: int, *numbers: int) -> np.random.Generator:
    """Return the generator of a stream, of one of its epochs or samples, ...; equal numbers give equal draws."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=numbers))


class TrainingOrder:
    """Epochs of indices into the records of several data sets, one set after the other.

    An epoch has as many places as there are records. Without weights it shows every record once, in an order
    of its own. With weights every set has the same number of places in every epoch, its share rounded to whole
    images, and goes through its own records again and again, in an order drawn anew for each pass: no record is
    shown twice before all of its set were shown. Any epoch can be asked for directly, so resuming replays nothing.

    Args:
        sizes: number of records per set, each at least 1.
        seed: of the whole run.
        weights: the sets' shares of the samples, in any unit; empty shares them by size.

    Raises:
        ConfigError: ``weights``, the value of ``DATASETS.TRAIN_WEIGHTS``, are not one positive number per set,
            or leave a set without a single image per epoch.
    """

    def __init__(self, sizes: Sequence[int], seed: int, weights: Sequence[float] = ()) -> None:
        self._sizes, self._seed = tuple(sizes), seed
        self._length = sum(sizes)
        self.places = _places(self._sizes, weights) if len(weights) else self._sizes

    def __len__(self) -> int:
        return self._length

    def epoch(self, number: int) -> np.ndarray:
        """Return the indices that epoch ``number`` shows, int64 [len(self)]."""
        shuffled = numbered_generator(self._seed, ORDER_STREAM, number).permutation(self._length)
        if self.places == self._sizes:
            return shuffled
        starts = np.cumsum((0, *self._sizes[:-1]))
        pool = [start + self._of_set(which, number) for which, start in enumerate(starts)]
        return np.concatenate(pool)[shuffled]

    def _of_set(self, which: int, epoch: int) -> np.ndarray:
        """Return the records of one set, numbered from 0, that an epoch shows."""
        size, places = self._sizes[which], self.places[which]
        first, last = epoch * places, (epoch + 1) * places  # in the endless row of this set's passes
        passes = range(first // size, -(-last // size))
        orders = [numbered_generator(self._seed, SET_STREAM, which, n).permutation(size) for n in passes]
        skipped = passes.start * size
        return np.concatenate(orders)[first - skipped : last - skipped]


def _places(sizes: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """Share an epoch by weight, in whole images, by largest remainder."""
    key = "DATASETS.TRAIN_WEIGHTS"
    if len(weights) != len(sizes):
        raise ConfigError(
            f"{key} has {len(weights)} values for {len(sizes)} data sets of DATASETS.TRAIN; give one each."
        )
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            raise ConfigError(
                f"{key} must hold numbers above 0, got {weight!r} in {list(weights)}; "
                "a set that is not wanted is left out of DATASETS.TRAIN."
            )
    wished = np.array(weights, np.float64) / sum(weights) * sum(sizes)
    places = np.floor(wished).astype(np.int64)
    most_cut = np.argsort(places - wished, kind="stable")
    places[most_cut[: sum(sizes) - places.sum()]] += 1
    if not places.all():
        which = int(np.argmin(places))
        raise ConfigError(
            f"{key} leaves data set {which + 1} of DATASETS.TRAIN without an image in an epoch of {sum(sizes)}: "
            f"{list(weights)}. Raise its weight, or leave the set out."
        )
    return tuple(places.tolist())
