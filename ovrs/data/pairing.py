"""The files of a split: images and labels paired by stem, and every way that can go wrong said plainly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

from ovrs.data.card import DatasetCard, Split
from ovrs.data.errors import DataError, shortened


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
    images = _files_by_stem(root / split.images, split.image_suffix, (), where)
    labels = None
    if split.labels is not None:
        labels = _files_by_stem(root / split.labels, split.label_suffix, split.label_stem_replace, where)

    listed = _listed_stems(split, root, where)
    if listed is None:
        stems = sorted(images)
        if labels is not None and not split.allow_unpaired_labels:
            _refuse_missing(
                labels.keys() - images.keys(), "label", "image", split.image_suffix, root / split.images, where
            )
    else:
        stems = listed
        _refuse_missing(
            set(stems) - images.keys(), "listed stem", "image", split.image_suffix, root / split.images, where
        )
    if labels is not None:
        _refuse_missing(
            set(stems) - labels.keys(), "image", "label", split.label_suffix, root / str(split.labels), where
        )

    records = []
    for stem in stems:
        record = Record(file_name=images[stem], dataset=name, stem=stem)
        if labels is not None:
            record["sem_seg_file_name"] = labels[stem]
        records.append(record)
    return records


def _files_by_stem(folder: Path, suffix: str, replace: tuple[tuple[str, str], ...], where: str) -> dict[str, str]:
    """Return {stem: path} of the files with ``suffix`` directly in ``folder``."""
    files: dict[str, str] = {}
    other_case = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or len(entry.name) <= len(suffix):
                    continue
                if not entry.name.endswith(suffix):
                    if entry.name.lower().endswith(suffix.lower()):
                        other_case.append(entry.name)
                    continue
                stem = entry.name[: -len(suffix)]
                for text, replacement in replace:
                    stem = stem.replace(text, replacement)
                if stem in files:
                    raise DataError(
                        f"{where}: {files[stem]} and {entry.path} both have the stem {stem!r}; rename or remove one."
                    )
                files[stem] = entry.path
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{where}: there is no folder {folder}. Prepare the data set, or point DATASETS.ROOT or "
            "$DETECTRON2_DATASETS to where it lies (cards of your own: paths start at the card's folder)."
        ) from None
    except PermissionError as error:
        raise DataError(f"{where}: {folder} may not be read ({error.strerror}); change its permissions.") from None
    if other_case:
        raise DataError(
            f"{where}: {len(other_case)} files in {folder} end like {suffix!r} except for the case: "
            f"{shortened(sorted(other_case))}. Rename them, or correct the suffix in the card."
        )
    if not files:
        raise DataError(f"{where}: no file in {folder} ends with {suffix!r}. Fill the folder, or correct the suffix.")
    return files


def _listed_stems(split: Split, root: Path, where: str) -> list[str] | None:
    if split.stem_file is None:
        if split.stems is None:
            return None
        source, stems = "stems", list(split.stems)
    else:
        source = str(root / split.stem_file)
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{where}: stem_file {source} cannot be read ({error}); correct the path.") from None
        stems = [line.strip() for line in text.splitlines() if line.strip()]
    if not stems:
        raise DataError(f"{where}: {source} lists no stem; give one per image, or leave it out to take all images.")
    repeated = sorted({stem for stem in stems if stems.count(stem) > 1}) if len(set(stems)) < len(stems) else []
    if repeated:
        raise DataError(f"{where}: {source} lists stems more than once: {shortened(repeated)}; remove the repeats.")
    return sorted(stems)


def _refuse_missing(stems: set[str], has: str, lacks: str, suffix: str, folder: Path, where: str) -> None:
    if stems:
        raise DataError(
            f"{where}: {len(stems)} {has}(s) without {lacks}: expected files ending with {suffix!r} in {folder} "
            f"for the stems {shortened(sorted(stems))}. Add the files, or remove their partners."
        )
