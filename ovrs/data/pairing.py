"""The files of a split: images and labels paired by stem, and every way that can go wrong said plainly."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from ovrs.data.card import DatasetCard, Split
from ovrs.data.coco import label_name, read_coco
from ovrs.data.encodings import CocoEncoding
from ovrs.errors import DataError, shortened

_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # byte order mark and spaces of no width, which editors leave in files


class Record(TypedDict, total=False):
    """One image of a data set.

    Attributes:
        file_name: the image file.
        sem_seg_file_name: the label file; absent in splits without labels.
        dataset: registered name, the key to class strings and other metadata.
        stem: what image and label file have in common.
    """

    file_name: str
    sem_seg_file_name: str
    dataset: str
    stem: str


def list_records(name: str, card: DatasetCard, split: Split, root: Path) -> list[Record]:
    """List the images of a split with their labels, sorted by stem. Opens no image.

    Args:
        name: registered name, copied into the records.
        card: names the file in messages.
        split: folders, suffixes and stems.
        root: what relative folders start from.

    Raises:
        DataError: missing or empty folder, an image without label or the reverse, two files with one
            stem, or a listed stem without files.
    """
    where = f"data set {name} ({card.path})"
    if isinstance(card.labels, CocoEncoding) and split.labels is not None:
        return _coco_records(name, split, root, where)
    image_folder, label_folder = root / split.images, root / str(split.labels)
    together = split.labels is not None and image_folder.resolve() == label_folder.resolve()
    if together and set(split.image_suffixes) & set(split.label_suffixes):
        raise DataError(
            f"{where}: images and labels lie in one folder, {image_folder}, and both end with "
            f"{shortened(split.image_suffixes)}; say how they differ: image_suffix, label_suffix."
        )
    images = _files_by_stem(image_folder, split.image_suffixes, (), where, split.label_suffixes if together else ())
    labels = None
    if split.labels is not None:
        others = split.image_suffixes if together else ()
        labels = _files_by_stem(label_folder, split.label_suffixes, split.label_stem_replace, where, others)

    listed = _listed_stems(split, root, where)
    if listed is None:
        stems = sorted(images)
        if labels is not None and not split.allow_unpaired_labels:
            _refuse_missing(labels.keys() - images.keys(), "label", "image", split.image_suffixes, image_folder, where)
    else:
        stems = listed
        _refuse_missing(set(stems) - images.keys(), "listed stem", "image", split.image_suffixes, image_folder, where)
    if labels is not None:
        _refuse_missing(set(stems) - labels.keys(), "image", "label", split.label_suffixes, label_folder, where)

    records = []
    for stem in stems:
        record = Record(file_name=images[stem], dataset=name, stem=stem)
        if labels is not None:
            record["sem_seg_file_name"] = labels[stem]
        records.append(record)
    return records


def _coco_records(name: str, split: Split, root: Path, where: str) -> list[Record]:
    """List the images of an annotation file, sorted by name."""
    path = root / str(split.labels)
    images = sorted(read_coco(path).images.items(), key=lambda item: str(item[1]["file_name"]))
    records = [
        Record(
            file_name=str(root / split.images / image["file_name"]),
            sem_seg_file_name=label_name(path, number),
            dataset=name,
            stem=os.path.splitext(image["file_name"])[0],
        )
        for number, image in images
    ]
    if (listed := _listed_stems(split, root, where)) is not None:
        if missing := sorted(set(listed) - {record["stem"] for record in records}):
            raise DataError(f"{where}: {path} has no image for the listed stems {shortened(map(visible, missing))}.")
        records = [record for record in records if record["stem"] in set(listed)]
    if not records:
        raise DataError(f"{where}: {path} lists no image; export the annotations again.")
    if missing := [record["file_name"] for record in records if not os.path.isfile(record["file_name"])]:
        raise DataError(
            f"{where}: {len(missing)} of {len(records)} images that {path} lists are not there: {shortened(missing)}. "
            "Correct the split's images folder, or add the files."
        )
    return records


def visible(text: str) -> str:
    """Return a text with its invisible characters (byte order marks, spaces of other kinds) as escapes."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _files_by_stem(
    folder: Path, suffixes: Sequence[str], replace: tuple[tuple[str, str], ...], where: str, others: Sequence[str]
) -> dict[str, str]:
    """Return {stem: path} of the files with one of ``suffixes`` directly in ``folder``.

    Files that end with one of ``others`` which is longer belong to the other side of the pairs.
    """
    files: dict[str, str] = {}
    other_case = []
    by_length = sorted(suffixes, key=len, reverse=True)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                suffix = next((end for end in by_length if entry.name.endswith(end) and entry.name != end), None)
                if suffix is None:
                    if entry.name.lower().endswith(tuple(end.lower() for end in suffixes)):
                        other_case.append(entry.name)
                    continue
                if any(len(other) > len(suffix) and entry.name.endswith(other) for other in others):
                    continue
                stem = entry.name[: -len(suffix)]
                for text, replacement in replace:
                    stem = stem.replace(text, replacement)
                if stem in files:
                    raise DataError(
                        f"{where}: {files[stem]} and {entry.path} both have the stem {visible(stem)!r}; "
                        "rename or remove one."
                    )
                files[stem] = entry.path
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{where}: there is no folder {folder}. Prepare the data set, or point DATASETS.ROOT or "
            "$DETECTRON2_DATASETS to where it lies (cards of your own: paths start at the card's folder)."
        ) from None
    except PermissionError as error:
        raise DataError(f"{where}: {folder} may not be read ({error.strerror}); change its permissions.") from None
    if other_case and not others:
        both = ", ".join(sorted({*suffixes, *(os.path.splitext(name)[1] for name in other_case)}))
        raise DataError(
            f"{where}: {len(other_case)} files in {folder} end like {_quoted(suffixes)} except for the case: "
            f"{shortened(sorted(other_case))}. Rename them, or correct the suffix in the card; it may be a list, "
            f"[{both}]."
        )
    if not files:
        raise DataError(
            f"{where}: no file in {folder} ends with {_quoted(suffixes)}. Fill the folder, or correct the suffix."
        )
    return files


def _quoted(suffixes: Sequence[str]) -> str:
    return " or ".join(map(repr, suffixes))


def _listed_stems(split: Split, root: Path, where: str) -> list[str] | None:
    if split.stem_file is None:
        if split.stems is None:
            return None
        source, stems = "stems", list(split.stems)
    else:
        source = str(root / split.stem_file)
        try:
            content = Path(source).read_bytes()
            text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
        except OSError as error:
            raise DataError(f"{where}: stem_file {source} cannot be read ({error}); correct the path.") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: stem_file {source} is no text in UTF-8 ({error}); save it as UTF-8.") from None
        stems = [stem for line in text.splitlines() if (stem := line.strip().strip(_INVISIBLE))]
    if not stems:
        raise DataError(f"{where}: {source} lists no stem; give one per image, or leave it out to take all images.")
    repeated = sorted({stem for stem in stems if stems.count(stem) > 1}) if len(set(stems)) < len(stems) else []
    if repeated:
        raise DataError(
            f"{where}: {source} lists stems more than once: {shortened(map(visible, repeated))}; remove the repeats."
        )
    return sorted(stems)


def _refuse_missing(stems: set[str], has: str, lacks: str, suffixes: Sequence[str], folder: Path, where: str) -> None:
    if stems:
        raise DataError(
            f"{where}: {len(stems)} {has}(s) without {lacks}: expected files ending with {_quoted(suffixes)} in "
            f"{folder} for the stems {shortened(map(visible, sorted(stems)))}. Add the files, or remove their partners."
        )
