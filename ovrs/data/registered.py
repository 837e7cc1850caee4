"""Data sets that other code has registered with Detectron2's catalogues, as plain dicts and metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.data.card import DatasetCard, class_words
from ovrs.data.colours import picture_colours
from ovrs.data.encodings import IdEncoding
from ovrs.data.pairing import Record
from ovrs.errors import DataError, shortened
from ovrs.structures import IGNORE_LABEL


def adopt(name: str) -> None:
    """Complete what stands in both catalogues under a name, so that all of this project works on it.

    Its metadata says what a card would: ``stuff_classes`` are the class strings in index order (``a|b`` are synonyms),
    ``stuff_colors`` the palette (without it, that of the masks), ``ignore_label`` the stored value that is ignored (255
    is in any case). Its records have ``file_name`` and, where there are labels, ``sem_seg_file_name``, an image file of
    class indices; ``height`` and ``width`` are compared with the files.

    Args:
        name: registered by ``DatasetCatalog.register``; the function is not called yet.

    Raises:
        DataError: the metadata does not name the classes, or names them in a way that cannot be used.
    """
    metadata = MetadataCatalog.get(name)
    where = f'MetadataCatalog.get("{name}")'
    classes = metadata.get("stuff_classes")
    if not classes or isinstance(classes, str) or not all(isinstance(text, str) for text in classes):
        hint = ""
        if metadata.get("thing_classes"):
            hint = (
                " It has thing_classes, as sets for detection have: their instances are no semantic labels. For COCO "
                "annotations, write a card with labels: {coco: annotations.json}."
            )
        raise DataError(
            f"data set {name!r} was registered with Detectron2 without class strings; add them: "
            f'{where}.set(stuff_classes=["building|house", "road", ...], ignore_label=255).{hint}'
        )
    words = class_words(classes, f"{where}.stuff_classes")
    ignored = metadata.get("ignore_label")
    if ignored is not None and (type(ignored) is not int or ignored < 0):
        raise DataError(f"{where}.ignore_label must be a stored value from 0 (255 is usual), got {ignored!r}.")
    table = {index: index for index in range(len(classes))}
    if ignored is not None:
        table[ignored] = IGNORE_LABEL
    colours = metadata.get("stuff_colors")
    if colours is not None and len(colours) != len(classes):
        raise DataError(f"{where}.stuff_colors lists {len(colours)} colours for {len(classes)} classes.")
    card = DatasetCard(
        name=name,
        title=name,
        classes=tuple(classes),
        display_names=words.names,
        labels=IdEncoding(tuple(table.items())),
        path=Path(where),
        palette=None if colours is None else tuple(tuple(colour) for colour in colours),
    )
    records = partial(_records, DatasetCatalog[name], name)
    DatasetCatalog[name] = records
    defaults = {"evaluator_type": "sem_seg", "ignore_label": IGNORE_LABEL, "image_root": ""}
    metadata.set(**{key: value for key, value in defaults.items() if metadata.get(key) is None})
    metadata.set(class_strings=card.classes, card=card, split="", root="")
    if metadata.get("sem_seg_root") is None or colours is None:
        first = records()[0].get("sem_seg_file_name")
        if metadata.get("sem_seg_root") is None:
            metadata.sem_seg_root = os.path.dirname(first) or "." if first else ""
        if colours is None:
            metadata.stuff_colors = picture_colours(card, first)


def _records(function: Callable[[], Sequence[dict[str, Any]]], name: str) -> list[Record]:
    """Call what was registered, check it, and add to its records what this project's own have."""
    where = f'DatasetCatalog.get("{name}")'
    records = function()
    if not isinstance(records, (list, tuple)) or not records or not all(isinstance(item, dict) for item in records):
        raise DataError(f"{where} must give a list of dicts, one per image, and not an empty one.")
    for record in records:
        if not isinstance(record.get("file_name"), (str, os.PathLike)):
            raise DataError(f"{where} gives a record without file_name: {shortened(record)}. Add it.")
    labelled = ["sem_seg_file_name" in record for record in records]
    if any(labelled) and not all(labelled):
        alone = [record["file_name"] for record, has in zip(records, labelled, strict=True) if not has]
        raise DataError(f"{where}: {len(alone)} records have no sem_seg_file_name: {shortened(alone)}. Add it.")
    if not any(labelled) and (other := {"annotations", "pan_seg_file_name"} & set(records[0])):
        kind = "panoptic images" if "pan_seg_file_name" in other else "instances"
        raise DataError(
            f"{where} has {kind} ({shortened(sorted(other))}) but no semantic labels; add sem_seg_file_name, an image "
            "file of class indices per record, or write a card with labels: {coco: annotations.json} for COCO files."
        )
    files = [str(record[key]) for record in records for key in ("file_name", "sem_seg_file_name") if key in record]
    if missing := [file for file in files if not os.path.isfile(file)]:
        listed = f"{len(missing)} files that are not there: {shortened(missing)}"
        raise DataError(f"{where} names {listed}. Correct the paths.")
    completed = []
    for record in records:
        paths = {key: str(record[key]) for key in ("file_name", "sem_seg_file_name") if key in record}
        completed.append(Record(**{**record, **paths, "dataset": name, "stem": Path(paths["file_name"]).stem}))
    return completed
