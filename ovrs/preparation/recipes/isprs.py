"""What the benchmarks of the ISPRS share: labels come with or without the borders of objects."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ovrs.data.card import DatasetCard
from ovrs.errors import DataError
from ovrs.preparation.recipe import fact
from ovrs.preparation.sources import Key, Member, Source

logger = logging.getLogger(__name__)


def labels_of_set(source: Source, card: DatasetCard, sets: Mapping[str, tuple[str, str]]) -> dict[Key, Member]:
    """Return the labels that ``source.label_set`` of a card wants; where only the other set is there, that one.

    Args:
        source: the original files.
        card: the data set.
        sets: {label set: (pattern, example) for :meth:`Source.find`}, two of them.

    Raises:
        DataError: neither is there, or the card wants a third.
    """
    wanted = fact(card, "label_set", str)
    if wanted not in sets:
        raise DataError(f"{card.path}: source.label_set is {wanted!r}; it must be one of {', '.join(sets)}.")
    if labels := source.find(*sets[wanted], optional=True):
        return labels
    (other,) = sets.keys() - {wanted}
    if labels := source.find(*sets[other], optional=True):
        text = "%s wants labels like %s; the source has only such as %s, so these are taken."
        logger.warning(text, card.name, sets[wanted][1], sets[other][1])
        return labels
    return source.find(*sets[wanted])
