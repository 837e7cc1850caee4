"""Recipes: how the original archives of one family of data sets become jobs."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

from ovrs.data.card import DatasetCard
from ovrs.errors import DataError, shortened
from ovrs.preparation.jobs import Job
from ovrs.preparation.sources import Member, Source


class Recipe(ABC):
    """What is particular about the original archives of one family; everything else is shared.

    Attributes:
        family: value of ``source.family`` in the cards that it prepares.
        download: what to fetch, for people.
        wrong_conversion: what the labels look like after the usual mistakes, printed by ``--check``.
    """

    family: ClassVar[str]
    download: ClassVar[str]
    wrong_conversion: ClassVar[str]

    @abstractmethod
    def jobs(self, source: Source, card: DatasetCard) -> Iterable[Job]:
        """Plan the work. Looks at names and, where it must, at small text files; opens no image.

        Args:
            source: the original files.
            card: the data set; all facts (tiling, splits, colours) come from here.

        Raises:
            DataError: files are missing, or have names that do not belong here.
        """


def fact(card: DatasetCard, key: str, kind: type | tuple[type, ...]) -> Any:
    """Return ``source.<key>`` of a card.

    Raises:
        DataError: missing, or not of this type.
    """
    value = card.source.get(key)
    if not isinstance(value, kind):
        raise DataError(
            f"{card.path}: source.{key} is {value!r}; the recipe of this family needs it. Correct the card."
        )
    return value


def listed(member: Member) -> list[str]:
    """Return the names in a list file of the authors: one per line, without folders.

    Raises:
        DataError: no text, empty, or with a name twice.
    """
    try:
        lines = member.read().decode("utf-8-sig").replace("\\", "/").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{member} is no text file; fetch it again.") from None
    names = [line.strip().rpartition("/")[2] for line in lines if line.strip()]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice or not names:
        raise DataError(f"{member} lists {f'{shortened(twice)} twice' if twice else 'nothing'}; fetch it again.")
    return names


def drawn(names: Iterable[str], count: int, seed: int) -> frozenset[str]:
    """Draw names by chance, the same ones everywhere and always.

    The order is that of checksums, so neither a library's generator nor the other names decide about a name's rank.

    Raises:
        ValueError: there are fewer than ``count`` names.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    if count > len(ranked):
        raise ValueError(f"{count} of {len(ranked)} names cannot be drawn")
    return frozenset(ranked[:count])


def splits_of_id(card: DatasetCard, name: str, member: Member) -> tuple[str, ...]:
    """Return the splits whose list in ``source.split_ids`` names a tile, a scene, a domain ...

    What no list names belongs to ``source.other_ids``, where the card has that: some splits, or none.

    Raises:
        DataError: no list names it and the card does not expect others, so the file belongs to something else.
    """
    ids = fact(card, "split_ids", dict)
    splits = tuple(split for split in card.splits if name in ids.get(split, ()))
    if not splits and "other_ids" in card.source:
        return tuple(fact(card, "other_ids", list))
    if not splits:
        raise DataError(
            f"{member}: {name} is in no list of source.split_ids of {card.path}; leave the file out, or add it."
        )
    return splits


def splits_of_folder(card: DatasetCard, name: str) -> tuple[str, ...]:
    """Return the splits that get what one of the authors' folders or lists holds, by ``source.original_splits``.

    Raises:
        DataError: the card does not list the folder.
    """
    folders = fact(card, "original_splits", dict)
    if name not in folders:
        raise DataError(f"{card.path}: source.original_splits lists {', '.join(folders)}, but not {name!r}; add it.")
    return tuple(folders[name])
