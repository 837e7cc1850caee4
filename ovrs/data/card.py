"""Data cards: one YAML file says what a data set is called, how its labels are coded and where its files lie.

Built-in and users' own data sets share this schema. In memory labels are always *canonical*: uint8,
class index 0..T-1, and ``IGNORE_LABEL`` for pixels that do not count; a card says how files become that.

.. code-block:: yaml

    name: my_town                       # registered as my_town_train, my_town_val
    classes: [building|house, road, other]
    labels:                             # one of several forms; left out: stored value = class index
      colours: {building: "#3C1098", road: [110, 193, 228], other: [0, 0, 0]}
      ignore_colours: ["#9B9B9B"]
                                        # ids: {0: other, 255: building}   ignore: [7]
                                        # coco: annotations.json   (see CocoEncoding)
    splits:                             # paths are relative to this file
      train: {images: train/images, labels: train/masks}
      val: {images: val/images, labels: val/masks}
    image_suffix: [.jpg, .JPG]          # one ending, or several
    label_suffix: _mask.png             # the stem is what is left without the suffix: both sides must agree

A card of the same classes says ``inherit: other.yaml`` (a path from its own folder, or the name of a built-in card):
what it does not say itself stands there, but for names, splits, notes and the facts of ``source``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovrs.data.encodings import CocoEncoding, Colour, Labels, read_colour, read_encoding
from ovrs.data.strict_yaml import Node
from ovrs.errors import DataError, VocabularyError, nearest
from ovrs.plain_yaml import read_plain_yaml
from ovrs.structures import IGNORE_LABEL
from ovrs.vocabulary import Vocabulary

MAX_CLASSES = 254  # 255 is ignored, 254 marks unknown values while labels are decoded

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
BUILT_IN_CARDS = Path(__file__).parent / "cards"
_INHERITED = "classes metadata_classes labels palette image_suffix label_suffix gsd_m licence homepage"
# Prose; anything may stand there, and nothing reads it.
_UNREAD = "role provenance"


@dataclass(frozen=True)
class Split:
    """One folder of images and its folder of labels. Paths are relative to the root of the data set.

    Attributes:
        name: "train", "val", ...
        images: folder of the images, flat.
        labels: folder of the labels, flat, or a COCO file; None for images without labels.
        image_suffixes: endings of image files, extension included; the rest of the name is the stem.
        label_suffixes: the same for label files.
        label_stem_replace: pairs (text, replacement) applied to label stems in order.
        stems: where given, exactly these stems belong to the split.
        stem_file: a text file with one stem per line, instead of ``stems``.
        allow_unpaired_labels: labels without an image are no error (one label folder, many image folders).
    """

    name: str
    images: str
    labels: str | None
    image_suffixes: tuple[str, ...]
    label_suffixes: tuple[str, ...]
    label_stem_replace: tuple[tuple[str, str], ...] = ()
    stems: tuple[str, ...] | None = None
    stem_file: str | None = None
    allow_unpaired_labels: bool = False

    @property
    def image_suffix(self) -> str:
        """The ending of image files that are written."""
        return self.image_suffixes[0]

    @property
    def label_suffix(self) -> str:
        """The ending of label files that are written."""
        return self.label_suffixes[0]


@dataclass(frozen=True)
class DatasetCard:
    """What is known about a data set.

    Attributes:
        name: identifier; its splits are registered as ``<name>_<split>``.
        title: one line for people.
        classes: texts for the text encoder in index order; ``a|b`` are synonyms.
        display_names: one name per class for tables and legends.
        labels: how stored labels become class indices.
        path: the file that the card was read from, or what else messages call it.
        splits: by name; empty for cards that only document a nomenclature.
        aliases: {other registered name: split}.
        palette: one RGB colour per class, or None.
        gsd_m: ground sampling distance in metres, a number or a description.
        licence: terms as far as known.
        homepage: where to get it.
        notes: what a user should know.
        source: facts about the original archive, for preparation tools; free form.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    display_names: tuple[str, ...]
    labels: Labels
    path: Path
    splits: Mapping[str, Split] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    palette: tuple[Colour, ...] | None = None
    gsd_m: float | str | None = None
    licence: str = ""
    homepage: str = ""
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def labelled_classes(self) -> tuple[int, ...]:
        """Indices of the classes that labels can contain; the others are text queries without ground truth."""
        found = {index for _, index in self.labels.table}
        if isinstance(self.labels, CocoEncoding):
            found.add(self.labels.background)
        return tuple(sorted(found - {IGNORE_LABEL}))


def load_card(path: str | Path) -> DatasetCard:
    """Read and check a data card.

    Args:
        path: a YAML file of the form shown at the top of this module; plain YAML only.

    Raises:
        DataError: the file is missing or not plain YAML, a key is unknown, missing or of the wrong
            type, or values contradict each other. The message names the file, the key and the remedy.
    """
    path = Path(path)
    node = Node(_with_inherited(path, ()), str(path))
    name = _identifier(node.text("name"), node.where("name"))
    classes = node.texts("classes")
    words = class_words(classes, node.where("classes"))

    labels = read_encoding(node.child("labels"), classes, words.names)
    ignored = sum(index == IGNORE_LABEL for _, index in labels.table)
    display_names = node.texts("metadata_classes", words.names)
    if not len(classes) <= len(display_names) <= len(classes) + ignored:
        raise DataError(
            f"{node.where('metadata_classes')}: lists {len(display_names)} names for {len(classes)} classes and "
            f"{ignored} ignored values. Give one name per class, in the same order; names of ignored values may follow."
        )
    splits = _splits(node, labels.file if isinstance(labels, CocoEncoding) else None)
    aliases = node.child("aliases").text_pairs()
    for alias, split in aliases:
        _identifier(alias, node.where("aliases"))
        if split not in splits:
            raise DataError(
                f"{node.where('aliases')}: {alias!r} points to the split {split!r}, which does not exist. "
                f"Splits of this card: {', '.join(splits) or 'none'}."
            )
    return DatasetCard(
        name=name,
        title=node.text("title", name),
        classes=classes,
        display_names=display_names[: len(classes)],
        labels=labels,
        splits=splits,
        aliases=dict(aliases),
        palette=_palette(node, len(classes)),
        gsd_m=node.get("gsd_m", (float, int, str, type(None)), "a number, a text or null", None),
        licence=node.text("licence", ""),
        homepage=node.text("homepage", ""),
        notes=node.texts("notes", ()),
        source=node.child("source").content,
        path=path,
    )


def class_words(classes: Sequence[str], where: str) -> Vocabulary:
    """Return the vocabulary of a data set's class strings; ``where`` they stand starts the message of an error.

    Raises:
        DataError: they cannot be used, or are more than 8-bit labels can hold.
    """
    try:
        words = Vocabulary.from_strings(classes)
    except VocabularyError as error:
        raise DataError(f"{where}: {error}") from None
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{where}: at most {MAX_CLASSES} classes fit into 8-bit labels, got {len(classes)}.")
    return words


def _with_inherited(path: Path, heirs: tuple[Path, ...]) -> dict[str, Any]:
    """Read a card, completed by what it inherits; ``heirs`` are the cards that led to it."""
    node = Node(read_plain_yaml(path, "data card", DataError), str(path))
    node.allow(f"name title inherit splits aliases notes source {_INHERITED} {_UNREAD}")
    other = node.text("inherit", "")
    if not other:
        return node.content
    target = (
        path.parent / Path(other).expanduser()
        if other.endswith((".yaml", ".yml"))
        else BUILT_IN_CARDS / f"{other}.yaml"
    )
    if target.resolve() in (heir.resolve() for heir in (*heirs, path)):
        raise DataError(f"{node.where('inherit')}: {other} inherits from this card in turn; let one stand alone.")
    if not target.is_file():
        names = [card.stem for card in BUILT_IN_CARDS.glob("*.yaml")]
        raise DataError(
            f"{node.where('inherit')}: there is no card {target}. Give a path from the folder of this card, or the "
            f"name of a built-in card; the nearest is {nearest(other, names)}."
        )
    inherited = _with_inherited(target, (*heirs, path))
    return {**{key: inherited[key] for key in _INHERITED.split() if key in inherited}, **node.content}


def _identifier(text: Any, where: str) -> str:
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise DataError(
            f"{where}: {text!r} is no usable name. Write a text of letters, digits and _ . + - (no spaces)."
        )
    return text


def _palette(node: Node, size: int) -> tuple[Colour, ...] | None:
    values = node.get("palette", list, "a list of colours", None)
    if values is None:
        return None
    if len(values) != size:
        raise DataError(f"{node.where('palette')}: lists {len(values)} colours for {size} classes; give one per class.")
    return tuple(read_colour(value, node.where("palette")) for value in values)


def _splits(card: Node, coco: str | None) -> dict[str, Split]:
    """Read the splits; ``coco`` is the annotation file of those that name none themselves."""
    image_suffixes = card.text_or_texts("image_suffix", (".png",))
    label_suffixes = card.text_or_texts("label_suffix", (".png",))
    splits = {}
    for name in card.child("splits").content:
        _identifier(name, card.where("splits"))
        node = card.child("splits").child(name)
        node.allow("images labels image_suffix label_suffix label_stem_replace stems stem_file allow_unpaired_labels")
        if "stems" in node.content and "stem_file" in node.content:
            raise DataError(f"{node.where()}: stems and stem_file exclude each other; keep one.")
        splits[name] = split = Split(
            name=name,
            images=node.text("images"),
            labels=node.get(
                "labels",
                (str, type(None)),
                "a folder, or null for images without labels",
                *([coco] if coco else []),
            ),
            image_suffixes=node.text_or_texts("image_suffix", image_suffixes),
            label_suffixes=node.text_or_texts("label_suffix", label_suffixes),
            label_stem_replace=node.child("label_stem_replace").text_pairs(),
            stems=node.texts("stems") if "stems" in node.content else None,
            stem_file=node.text("stem_file") if "stem_file" in node.content else None,
            allow_unpaired_labels=node.get("allow_unpaired_labels", bool, "true or false", False),
        )
        for key, suffixes in (("image_suffix", split.image_suffixes), ("label_suffix", split.label_suffixes)):
            for suffix in suffixes:
                if "." not in suffix:
                    raise DataError(
                        f"{node.where(key)}: {suffix!r} has no dot; write the whole ending, such as .png or _mask.png."
                    )
    return splits
