"""The colours of a data set's classes in pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ovrs.data.card import DatasetCard, Split
from ovrs.data.encodings import CocoEncoding, Colour, ColourEncoding
from ovrs.data.rasters import read_colour_table
from ovrs.errors import DataError
from ovrs.structures import IGNORE_LABEL
from ovrs.visualization import class_colours, palette, tell_apart
from ovrs.vocabulary import Vocabulary


def picture_colours(card: DatasetCard, label_file: str | None) -> list[list[int]]:
    """Return the colours of all classes: the card's palette, else those of its masks, else ours.

    Masks have colours where their classes are coded as such, and where their files have a colour table (palette PNG and
    TIFF) in which all classes look different; a table of greys that number the values is none.

    Args:
        card: describes the classes.
        label_file: one of the label files, if there is one.

    Returns:
        RGB in 0..255, one per class.
    """
    own = card.palette
    if own is None and (found := _mask_colours(card, label_file)):
        names = Vocabulary.from_strings(card.classes).names
        own = class_colours(names, {names[index]: "#{:02x}{:02x}{:02x}".format(*found[index]) for index in found})
    return [list(map(int, colour)) for colour in (palette(len(card.classes)) if own is None else own)]


def a_label_file(split: Split, root: Path) -> str | None:
    """Return the first label file of a split, if there is one."""
    try:
        files = [
            entry.path for entry in os.scandir(root / str(split.labels)) if entry.name.endswith(split.label_suffixes)
        ]
    except OSError:  # said with its remedy once the data are read
        return None
    return min(files, default=None)


def _mask_colours(card: DatasetCard, label_file: str | None) -> dict[int, Colour]:
    """Return {class index: colour} as far as masks say."""
    pairs = [(value, index) for value, index in card.labels.table if index != IGNORE_LABEL]
    if not isinstance(card.labels, ColourEncoding):
        table = None if isinstance(card.labels, CocoEncoding) else _colour_table(label_file)
        if table is None or any(value >= len(table) for value, _ in pairs):
            return {}
        pairs = [(tuple(table[value]), index) for value, index in pairs]
    found = {index: colour for colour, index in reversed(pairs)}  # of several, the first
    return found if isinstance(card.labels, ColourEncoding) or tell_apart(list(found.values())) else {}


def _colour_table(label_file: str | None) -> Sequence[Colour] | None:
    try:
        table = None if label_file is None else read_colour_table(label_file)
    except DataError:  # likewise
        return None
    return None if table is None else table.tolist()
