"""Splits that the authors publish as text files, one stem per line."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping

from ovrs.data.card import DatasetCard
from ovrs.errors import DataError, shortened
from ovrs.preparation.recipe import fact, listed, splits_of_folder
from ovrs.preparation.sources import Source

logger = logging.getLogger(__name__)

_IMAGE_ENDING = re.compile(r"\.(?:jpe?g|png|tiff?)$", re.IGNORECASE)


def listed_splits(source: Source, card: DatasetCard, folder: str = "") -> dict[str, tuple[str, ...]]:
    """Return {stem: splits} by the list files that ``source.original_splits`` of a card names.

    The list of ``train`` is ``train.txt``, or has ``train`` as a word of its name, as ``my_train-1.txt`` has.
    Endings of image files behind the stems do not matter.

    Args:
        source: the original files.
        card: the data set.
        folder: pattern of a folder, below which the lists are looked for; where a source holds several data sets.

    Raises:
        DataError: a list is missing, empty or no text, or names a stem that another one names.
    """
    names = fact(card, "original_splits", dict)
    words = "|".join(map(re.escape, names))
    below = f"{folder}/(?:.*/)?" if folder else ""
    pattern = rf"{below}(?:[^/]*[^A-Za-z/])?({words})(?:[^A-Za-z/][^/]*)?\.txt"
    lists = source.find(pattern, f"{next(iter(names))}.txt")
    if missing := [f"{name}.txt" for name in names if name not in lists]:
        raise DataError(
            f"{source} holds {next(iter(lists.values()))}, but not {shortened(missing)}; add what is missing."
        )
    origins: dict[str, str] = {}
    for name in names:
        stems = {_IMAGE_ENDING.sub("", line) for line in listed(lists[name])}
        if twice := sorted(stems & origins.keys()):
            raise DataError(
                f"{lists[name]} and {lists[origins[twice[0]]]} both list {shortened(twice)}; fetch the lists again."
            )
        origins.update(dict.fromkeys(stems, name))
    return {stem: splits_of_folder(card, name) for stem, name in origins.items()}


def taken(
    card: DatasetCard, splits: Mapping[str, tuple[str, ...]], there: Collection[str], hint: str
) -> dict[str, tuple[str, ...]]:
    """Return {stem: splits} of the images that are listed for a split and there; warn about the others.

    Args:
        card: named in the warnings.
        splits: result of :func:`listed_splits`.
        there: stems of the images in the source.
        hint: what to know about listed images that are missing.
    """
    wanted = {stem: names for stem, names in splits.items() if names}
    if missing := sorted(wanted.keys() - set(there)):
        text = "%s: %d of %d listed images are not in the source: %s. %s"
        logger.warning(text, card.name, len(missing), len(wanted), shortened(missing), hint)
    if strange := sorted(set(there) - splits.keys()):
        text = "%s: %d images are in no list and left out: %s."
        logger.warning(text, card.name, len(strange), shortened(strange))
    return {stem: names for stem, names in wanted.items() if stem in there}
