"""One vocabulary for training on several data sets, and their labels in it.

Every image meets every class of the union, also those that its own data set does not label. A tree in an image of
a set that only knows buildings is then a negative of "tree": partial-label noise, as it is part of LandDiscover50K.
``DATASETS.UNLABELLED_CLASSES: ignored`` keeps it out of the loss, and with it the certain negatives that a building is
no tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ovrs.data.card import MAX_CLASSES, DatasetCard
from ovrs.errors import DataError, VocabularyError
from ovrs.structures import IGNORE_LABEL
from ovrs.vocabulary import merge_classes


@dataclass(frozen=True)
class SharedVocabulary:
    """A data set's place in the vocabulary that it shares with others.

    Attributes:
        classes: the T shared class strings, the same for all data sets.
        indices: per class of the data set, its index among them.
        labelled: bool [T], whether the data set's labels can hold a class.
    """

    classes: tuple[str, ...]
    indices: tuple[int, ...]
    labelled: Tensor

    def relabel(self, labels: np.ndarray) -> np.ndarray:
        """Return the data set's canonical labels as indices of the shared classes, uint8; 255 stays ignored."""
        table = np.full(IGNORE_LABEL + 1, IGNORE_LABEL, np.uint8)
        table[: len(self.indices)] = self.indices
        return table[labels]


def share_vocabulary(cards: Mapping[str, DatasetCard]) -> dict[str, SharedVocabulary]:
    """Merge the classes of data sets, see :func:`ovrs.vocabulary.merge_classes`; earlier sets' strings win.

    Args:
        cards: {registered name: card}, in the order of ``DATASETS.TRAIN``.

    Raises:
        DataError: class lists that contradict each other, or more classes than 8-bit labels can hold.
    """
    try:
        classes, indices = merge_classes({name: card.classes for name, card in cards.items()})
    except VocabularyError as error:
        raise DataError(f"DATASETS.TRAIN_VOCABULARY is 'merged', but {error}") from None
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"the merged vocabulary of {', '.join(cards)} has {len(classes)} classes, and at most {MAX_CLASSES} fit "
            "into 8-bit labels; train on fewer sets, or set DATASETS.TRAIN_VOCABULARY to 'own'."
        )
    shared = {}
    for name, card in cards.items():
        labelled = torch.zeros(len(classes), dtype=torch.bool)
        labelled[[indices[name][index] for index in card.labelled_classes]] = True
        shared[name] = SharedVocabulary(classes, indices[name], labelled)
    return shared
