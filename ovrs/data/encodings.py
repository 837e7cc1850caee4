"""How stored labels become class indices: the forms that ``labels`` of a card may have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ovrs.data.strict_yaml import Node
from ovrs.errors import DataError, nearest
from ovrs.structures import IGNORE_LABEL

Colour = tuple[int, int, int]

_HEX_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")
_BYTE = range(256)


@dataclass(frozen=True)
class IdEncoding:
    """Labels stored as integers, one per pixel.

    Attributes:
        table: pairs (stored value, class index or ``IGNORE_LABEL``). The stored value 255 is ignored even
            where the table does not list it.
        threshold: where given, values become 255 from this one on and 0 below it before the lookup; for black and
            white masks that lossy compression or smoothing has touched.
    """

    table: tuple[tuple[int, int], ...]
    threshold: int | None = None


@dataclass(frozen=True)
class ColourEncoding:
    """Labels stored as colours.

    Attributes:
        table: pairs (RGB colour, class index or ``IGNORE_LABEL``).
        threshold: where given, every channel becomes 255 from this value on and 0 below it before the
            lookup; for masks that lossy compression has touched.
    """

    table: tuple[tuple[Colour, int], ...]
    threshold: int | None = None


@dataclass(frozen=True)
class CocoEncoding:
    """Labels as the annotations of a COCO file: polygons or run lengths, painted by :mod:`ovrs.data.coco`.

    Written as ``labels: {coco: annotations.json}``; a split may name a file of its own as its ``labels``. Where
    annotations overlap, the smaller one is on top, and of equals the later one.

    Attributes:
        file: the annotation file, relative to the root of the data set.
        table: pairs (category name, class index or ``IGNORE_LABEL``); by default every class under its first word
            (``categories: {house: building, tree: null}`` says otherwise, null for ignored).
        background: class index of pixels without annotation (``background: other``); ignored by default.
    """

    file: str
    table: tuple[tuple[str, int], ...]
    background: int = IGNORE_LABEL


Labels = IdEncoding | ColourEncoding | CocoEncoding


def read_encoding(node: Node, classes: Sequence[str], names: Sequence[str]) -> Labels:
    """Read the ``labels`` of a card.

    Args:
        node: what stands there; empty for stored values that are class indices.
        classes: the class strings, in index order.
        names: their first words.

    Raises:
        DataError: keys that do not go together, or values that contradict the classes.
    """
    node.allow("offset valid ignore ids colours ignore_colours threshold coco categories background")
    forms = [key for key in ("valid", "ids", "colours", "coco") if key in node.content]
    if len(forms) > 1:
        raise DataError(f"{node.where()}: {' and '.join(forms)} exclude each other; keep the one that fits the files.")
    if forms == ["colours"]:
        return _colour_encoding(node, classes, names)
    if forms == ["coco"]:
        return _coco_encoding(node, classes, names)
    if forms == ["ids"]:
        node.allow("ids ignore threshold")
        pairs = []
        for value, class_name in node.child("ids").content.items():
            if type(value) is not int or value < 0:
                raise DataError(f"{node.where('ids')}: {value!r} is no stored value; keys are integers from 0.")
            pairs.append((value, _class_index(class_name, classes, names, node.where(f"ids.{value}"))))
    else:
        pairs = _offset_pairs(node, len(classes))
    ignored = node.get("ignore", list, "a list of integers", [])
    if any(type(value) is not int or value < 0 for value in ignored):
        raise DataError(f"{node.where('ignore')} must be a list of integers from 0, found {ignored!r}.")
    both = sorted({value for value, _ in pairs} & set(ignored))
    if both:
        raise DataError(f"{node.where('ignore')}: {both} are values of classes too; a value is either.")
    threshold = _threshold(node) if forms == ["ids"] else None
    if threshold is not None and not {value for value, _ in pairs} <= {0, 255}:
        raise DataError(f"{node.where('ids')}: with a threshold, values are 0 or 255 after it; list no others.")
    return IdEncoding((*pairs, *((value, IGNORE_LABEL) for value in sorted(set(ignored)))), threshold)


def _offset_pairs(node: Node, num_classes: int) -> list[tuple[int, int]]:
    node.allow("offset valid ignore")
    offset = node.get("offset", int, "an integer", 0)
    valid = node.get("valid", list, "[first, last] stored value", [-offset, num_classes - 1 - offset])
    if len(valid) != 2 or any(type(value) is not int for value in valid) or not 0 <= valid[0] <= valid[1]:
        raise DataError(
            f"{node.where('valid')} must be [first, last] stored value, 0 <= first <= last, found {valid!r}."
        )
    first, last = valid
    if first + offset < 0 or last + offset >= num_classes:
        raise DataError(
            f"{node.where('valid')}: stored values {first}..{last} with offset {offset} become the class indices "
            f"{first + offset}..{last + offset}, but the card lists {num_classes} classes (0..{num_classes - 1})."
        )
    return [(value, value + offset) for value in range(first, last + 1)]


def _threshold(node: Node) -> int | None:
    threshold = node.get("threshold", int, "an integer from 1 to 255", None)
    if threshold is not None and not 1 <= threshold <= 255:
        raise DataError(f"{node.where('threshold')} must be an integer from 1 to 255, found {threshold}.")
    return threshold


def _colour_encoding(node: Node, classes: Sequence[str], names: Sequence[str]) -> ColourEncoding:
    node.allow("colours ignore_colours threshold")
    threshold = _threshold(node)
    table: dict[Colour, int] = {}
    entries = [
        (key, value, _class_index(key, classes, names, node.where("colours")))
        for key, value in node.child("colours").content.items()
    ]
    entries += [
        ("ignore_colours", value, IGNORE_LABEL) for value in node.get("ignore_colours", list, "a list of colours", [])
    ]
    for key, value, index in entries:
        where = node.where(key if index == IGNORE_LABEL else f"colours.{key}")
        colour = read_colour(value, where)
        if colour in table:
            raise DataError(f"{where}: the colour {list(colour)} is listed twice; a colour stands for one class.")
        if threshold is not None and not set(colour) <= {0, 255}:
            raise DataError(f"{where}: with a threshold, channels are 0 or 255 after it; {list(colour)} cannot occur.")
        table[colour] = index
    return ColourEncoding(tuple(table.items()), threshold)


def _coco_encoding(node: Node, classes: Sequence[str], names: Sequence[str]) -> CocoEncoding:
    node.allow("coco categories background")
    table = {name: index for index, name in enumerate(names)}
    for category, name in node.child("categories").content.items():
        where = node.where(f"categories.{category}")
        table[str(category)] = IGNORE_LABEL if name is None else _class_index(name, classes, names, where)
    background = node.text("background", "")
    index = _class_index(background, classes, names, node.where("background")) if background else IGNORE_LABEL
    return CocoEncoding(node.text("coco"), tuple(table.items()), index)


def _class_index(text: Any, classes: Sequence[str], names: Sequence[str], where: str) -> int:
    """Find a class by its whole text or by its first word."""
    for known in (classes, names):
        if text in known:
            return known.index(text)
    raise DataError(f"{where}: {text!r} is not among the classes. The nearest class is {nearest(str(text), names)!r}.")


def read_colour(value: Any, where: str) -> Colour:
    """Return a colour given as [red, green, blue] or "#RRGGBB"; ``where`` is its file and key."""
    if isinstance(value, str) and _HEX_COLOUR.fullmatch(value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(type(channel) is int and channel in _BYTE for channel in value)
    ):
        return value[0], value[1], value[2]
    raise DataError(f'{where}: a colour is [red, green, blue] with 0..255 each, or "#RRGGBB"; found {value!r}.')
