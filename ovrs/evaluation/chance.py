"""What guessing would score: the level below which a model has learned nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ovrs.structures import IGNORE_LABEL


def chance_miou(label_maps: Iterable[np.ndarray], num_classes: int) -> float:
    """Return the mIoU, in percent, that guessing reaches on given labels.

    Two guesses need no look at the image: a class drawn evenly for every pixel, and the commonest class
    everywhere. The better of the two is returned; of the first its expectation over draws.

    Args:
        label_maps: integer arrays of class indices, 255 ignored.
        num_classes: number of classes that can be guessed.

    Raises:
        ValueError: no labelled pixel.
    """
    counts = np.zeros(num_classes, dtype=np.int64)
    for labels in label_maps:
        counts += np.bincount(labels[labels != IGNORE_LABEL].ravel(), minlength=num_classes)
    if not counts.any():
        raise ValueError("there is no labelled pixel to guess.")
    share = counts[counts > 0] / counts.sum()
    hit = share / num_classes
    even = np.mean(hit / (share + 1 / num_classes - hit))
    commonest = share.max() / len(share)
    return 100.0 * float(max(even, commonest))
