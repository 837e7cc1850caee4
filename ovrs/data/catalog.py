"""Data sets by name: built-in cards, users' cards, and Detectron2's catalogues.

A split of a card is registered as ``<card>_<split>``, and once more under each alias, the first time
somebody asks for it. Its metadata carries the class strings: they travel with the data.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.data.card import BUILT_IN_CARDS, DatasetCard, Split, load_card
from ovrs.data.colours import a_label_file, picture_colours
from ovrs.data.pairing import list_records
from ovrs.data.registered import adopt
from ovrs.errors import DataError, nearest, shortened
from ovrs.structures import IGNORE_LABEL

ROOT_VARIABLE = "DETECTRON2_DATASETS"
CARDS_VARIABLE = "OVRS_DATASETS"
DEFAULT_ROOT = "datasets"

_CARD_PATH = re.compile(r"(?P<path>.+\.ya?ml)(?::(?P<split>[^:/\\]+))?")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """A split of a card and the folder that its paths start from."""

    card: DatasetCard
    split: Split
    root: Path


@dataclass(frozen=True)
class DatasetSummary:
    """One line of :func:`list_datasets`.

    Attributes:
        name: registered name.
        title: one line for people.
        num_classes: number of text queries.
        present: whether its folders exist.
        aliases: further names of the same data.
    """

    name: str
    title: str
    num_classes: int
    present: bool
    aliases: tuple[str, ...]


def resolve_datasets(names: Sequence[str], root: str | Path = "") -> list[str]:
    """Register data sets, where needed, and return their registered names.

    Args:
        names: each a registered name (``hg_potsdam_5_val``), an alias (``FLAIR_test``), a card of your own
            (``my.yaml``, or ``my.yaml:val`` if it has several splits), a name from a card that the
            environment variable ``OVRS_DATASETS`` lists (YAML files or folders of them, separated like PATH), or
            what other code has registered with Detectron2's catalogues (see :func:`ovrs.data.registered.adopt`).
        root: where built-in data sets lie; "" reads ``$DETECTRON2_DATASETS``, then takes ``datasets``. The
            paths of other cards start at the folder of their YAML file.

    Returns:
        One registered name per entry, in order. Cards of your own are registered as ``<card>_<split>``; if
        another file has taken that name, a digest of the path is appended.

    Raises:
        DataError: unknown name or split (with the nearest names), or a card that cannot be used.
    """
    if isinstance(names, str):
        raise DataError(f"data sets must be a list of names, got the single text {names!r}.")
    known = _known_entries(root)
    resolved = []
    for name in names:
        if match := _CARD_PATH.fullmatch(name):
            resolved.append(_register_own(_own_card(match["path"]), match["split"], known))
            continue
        if name in known:
            _register(name, known[name])
        elif name not in DatasetCatalog:
            raise DataError(
                f"unknown data set {name!r}. The nearest names are {nearest(name, known, 3)}; "
                f"a card of your own is given by its path (my.yaml:val) or listed in ${CARDS_VARIABLE}."
            )
        elif MetadataCatalog.get(name).get("card") is None:
            adopt(name)
        resolved.append(name)
    return resolved


def list_datasets(root: str | Path = "") -> list[DatasetSummary]:
    """Return all data sets that have a name, sorted; see :func:`resolve_datasets` for ``root``."""
    entries = _known_entries(root)
    summaries = []
    for name, entry in sorted(entries.items()):
        if name == _registered_name(entry.card, entry.split):
            folders = [entry.split.images, *([entry.split.labels] if entry.split.labels else [])]
            present = all((entry.root / folder).is_dir() for folder in folders)
            aliases = tuple(alias for alias, split in entry.card.aliases.items() if split == entry.split.name)
            summaries.append(DatasetSummary(name, entry.card.title, len(entry.card.classes), present, aliases))
    return summaries


@lru_cache(maxsize=1)
def built_in_cards() -> tuple[DatasetCard, ...]:
    """Return all cards that come with the package, sorted by name."""
    return tuple(load_card(path) for path in sorted(BUILT_IN_CARDS.glob("*.yaml")))


def data_root(root: str | Path = "") -> Path:
    """Return ``root``, else ``$DETECTRON2_DATASETS``, else ``datasets``."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).expanduser()


def _known_entries(root: str | Path) -> dict[str, _Entry]:
    """Return everything that has a name: built-in cards, then those of the environment variable."""
    entries: dict[str, _Entry] = {}
    cards = [(card, data_root(root)) for card in built_in_cards()]
    cards += [(card, card.path.parent) for card in map(load_card, _environment_cards())]
    for card, card_root in cards:
        targets = [(_registered_name(card, split), split) for split in card.splits.values()]
        targets += [(alias, card.splits[split]) for alias, split in card.aliases.items()]
        for name, split in targets:
            if name in entries:
                raise DataError(
                    f"{card.path} and {entries[name].card.path} both call a data set {name!r}; "
                    "change the name in yours."
                )
            entries[name] = _Entry(card, split, card_root)
    return entries


def _environment_cards() -> Iterator[Path]:
    for text in filter(None, os.environ.get(CARDS_VARIABLE, "").split(os.pathsep)):
        path = Path(text).expanduser()
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
        elif path.is_file():
            yield path
        else:
            raise DataError(f"${CARDS_VARIABLE} lists {text!r}, which does not exist; correct or remove it.")


def _own_card(text: str) -> DatasetCard:
    path = Path(text).expanduser()
    if not path.is_file():
        folder = path.absolute().parent
        cards = sorted(file.name for ending in ("yaml", "yml") for file in folder.glob(f"*.{ending}"))
        there = (
            f"it holds {shortened(cards)}"
            if cards
            else "it holds no YAML file"
            if folder.is_dir()
            else "which does not exist"
        )
        raise DataError(
            f"data card {text} does not exist: the folder {folder} was searched, {there}. Give its path from "
            f"the folder {Path.cwd()}, or in full."
        )
    return load_card(path)


def _registered_name(card: DatasetCard, split: Split) -> str:
    return f"{card.name}_{split.name}"


def _register_own(card: DatasetCard, split_name: str | None, known: Mapping[str, _Entry]) -> str:
    """Register a split of a user's card under a name that no other file has taken."""
    if split_name is None:
        if len(card.splits) != 1:
            choices = ", ".join(f"{card.path}:{name}" for name in card.splits) or "none; add splits to the card"
            raise DataError(f"{card.path} has {len(card.splits)} splits; say which one. Choices: {choices}.")
        (split_name,) = card.splits
    if split_name not in card.splits:
        raise DataError(
            f"{card.path} has no split {split_name!r}. The nearest is {nearest(split_name, card.splits) or 'none'}."
        )
    entry = _Entry(card, card.splits[split_name], card.path.parent)
    name = _registered_name(card, entry.split)
    if _is_taken(name, card.path, known):
        name += "@" + hashlib.sha256(str(card.path.resolve()).encode()).hexdigest()[:8]
        _logger.info("%s is registered as %s, since another data set has its name.", card.path, name)
    _register(name, entry)
    return name


def _is_taken(name: str, path: Path, known: Mapping[str, _Entry]) -> bool:
    """Whether a name belongs to something else than the card at ``path``."""
    if name in known:
        card = known[name].card
    elif name in DatasetCatalog:
        card = MetadataCatalog.get(name).get("card")
    else:
        return False
    return card is None or card.path.resolve() != path.resolve()


def _register(name: str, entry: _Entry) -> None:
    """Enter a data set into both catalogues; an entry of ours that says something else is replaced."""
    if name in DatasetCatalog:
        metadata = MetadataCatalog.get(name)
        if metadata.get("card") is None:
            other_name = _registered_name(entry.card, entry.split)
            raise DataError(
                f"data set {name!r} is registered with Detectron2 already, by other code; "
                f"unregister it there, or use another name of the same data: {other_name}."
            )
        if (metadata.card, metadata.split, metadata.root) == (entry.card, entry.split.name, str(entry.root)):
            return
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)

    card, split = entry.card, entry.split
    DatasetCatalog.register(name, partial(list_records, name, card, split, entry.root))
    MetadataCatalog.get(name).set(
        class_strings=card.classes,
        stuff_classes=list(card.display_names),
        stuff_colors=picture_colours(card, a_label_file(split, entry.root)),
        ignore_label=IGNORE_LABEL,
        evaluator_type="sem_seg",
        card=card,
        split=split.name,
        root=str(entry.root),
        image_root=str(entry.root / split.images),
        sem_seg_root=str(entry.root / split.labels) if split.labels else "",
    )
