"""Looking at a prepared data set: are the files those that were written, and can the labels be true?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ovrs.data.card import DatasetCard, Split
from ovrs.data.pairing import Record, list_records
from ovrs.data.reading import read_labels, read_size
from ovrs.data.work import progress, usable_cores
from ovrs.errors import DataError, shortened
from ovrs.preparation.manifest import IGNORED, Manifest, surprises
from ovrs.preparation.parallel import in_processes
from ovrs.preparation.run import recipe_for
from ovrs.structures import IGNORE_LABEL

_ALMOST_ALL = 0.995  # of the labelled pixels in one class: something went wrong
_SHARE_FACTOR = 2.0  # how far the share of a class may be from the expected one, up or down


@dataclass
class SplitReport:
    """What was found in one split.

    Attributes:
        name: registered name.
        pairs: images with labels.
        pixels: {class: pixels}, with the ignored ones.
        problems: what is certainly wrong.
        doubts: what is unusual.
    """

    name: str
    pairs: int = 0
    pixels: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def shares(self) -> dict[str, float]:
        """Return {class: share of the labelled pixels}."""
        labelled = {name: count for name, count in self.pixels.items() if name != IGNORED}
        total = sum(labelled.values())
        return {name: count / total for name, count in labelled.items()} if total else {}


@dataclass
class CheckReport:
    """What :func:`check` found.

    Attributes:
        splits: one report each.
        wrong_conversion: what the usual mistakes of this family look like.
    """

    splits: list[SplitReport]
    wrong_conversion: str

    @property
    def problems(self) -> list[str]:
        """What is certainly wrong, in all splits."""
        return [f"{split.name}: {problem}" for split in self.splits for problem in split.problems]


def check(card: DatasetCard, out: str | Path, *, workers: int = 0) -> CheckReport:
    """Compare a prepared data set with its card and its manifest. Reads every file, writes nothing.

    Args:
        card: the data set.
        out: what its folders start from.
        workers: number of processes; 0 takes one per core.

    Raises:
        DataError: the data set has no recipe, or its manifest is damaged or of other facts.
    """
    recipe, out = recipe_for(card), Path(out).expanduser().absolute()
    manifest = Manifest(card, out)
    reports = [_check_split(card, split, out, manifest, workers or usable_cores()) for split in card.splits.values()]
    return CheckReport(reports, recipe.wrong_conversion)


def _check_split(card: DatasetCard, split: Split, out: Path, manifest: Manifest, workers: int) -> SplitReport:
    report = SplitReport(f"{card.name}_{split.name}")
    try:
        records = list_records(report.name, card, split, out)
    except DataError as error:
        report.problems.append(str(error))
        records = []
    report.pairs = len(records)
    _compare_files(report, split, out, manifest)

    values: Counter[int] = Counter()
    function = partial(_check_pair, card=card, out=out, checksums=_checksums(split, manifest))
    found = in_processes(function, records, min(workers, len(records)) or 1)
    for pixels, problems in progress(found, report.name, len(records), "pair"):
        values.update(pixels)
        report.problems += problems
    report.pixels = {card.display_names[index]: values[index] for index in card.labelled_classes}
    report.pixels[IGNORED] = values[IGNORE_LABEL]
    originals = manifest.originals() if manifest.results else {}
    unexpected = surprises(card, {split.name: report.pairs}, originals)
    report.doubts += [f"{text}; is the download complete?" for text in unexpected[split.name]]
    _judge(report, card)
    return report


def _checksums(split: Split, manifest: Manifest) -> dict[str, str]:
    """Return {relative path: SHA-256} of what was written into a split."""
    return {
        path: digest
        for result in manifest.results.values()
        if split.name in result.splits
        for path, (_, digest) in result.files.items()
        if path.rpartition("/")[0] in (split.images, split.labels)
    }


def _compare_files(report: SplitReport, split: Split, out: Path, manifest: Manifest) -> None:
    written = _checksums(split, manifest)
    if not written:
        report.doubts.append(f"no manifest tells of it ({manifest.path}), so files cannot be compared with checksums")
        return
    there = {
        f"{folder}/{path.name}"
        for folder in (split.images, split.labels)
        if folder is not None and (out / folder).is_dir()
        for path in (out / folder).iterdir()
        if not path.name.startswith(".")
    }
    if missing := sorted(written.keys() - there):
        report.problems.append(f"{len(missing)} file(s) are missing: {shortened(missing)}; run the preparation again")
    others = {path for result in manifest.results.values() for path in result.files}
    own = {manifest.path.relative_to(out).as_posix()}  # beside the images where these lie in the first folder
    extra = sorted(there - others - own)
    if split.allow_unpaired_labels:  # a folder that several data sets share
        extra = [path for path in extra if path.rpartition("/")[0] != split.labels]
    if extra:
        report.problems.append(
            f"{len(extra)} file(s) were not written by the preparation: {shortened(extra)}; remove them"
        )


def _check_pair(
    record: Record, card: DatasetCard, out: Path, checksums: Mapping[str, str]
) -> tuple[dict[int, int], list[str]]:
    """Return {class index: pixels} and the problems of a pair."""
    problems = []
    paths = [Path(record["file_name"]), Path(record["sem_seg_file_name"])]
    try:
        labels = read_labels(paths[1], card)
        size = read_size(paths[0])
    except DataError as error:
        return {}, [str(error)]
    if labels.shape != size:
        problems.append(f"{paths[0]} and {paths[1]} differ in size ({size} and {labels.shape}, rows and columns)")
    for path in paths:
        expected = checksums.get(path.relative_to(out).as_posix())
        if expected is not None and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            problems.append(f"{path} is not as it was written; delete it and run the preparation again")
    counts = np.bincount(labels.ravel(), minlength=256)
    return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}, problems


def _judge(report: SplitReport, card: DatasetCard) -> None:
    """Say what is unusual about the shares of the classes."""
    shares = report.shares()
    if report.pixels.get(IGNORED) and not shares:
        report.problems.append("no labelled pixel: all pixels of all label files are ignored")
        return
    if empty := [name for name, share in shares.items() if not share]:
        report.doubts.append(f"no pixel of {shortened(empty)}")
    report.doubts += [
        f"{share:.1%} of the labelled pixels are {name}" for name, share in shares.items() if share > _ALMOST_ALL
    ]
    for name, wanted in card.source.get("expected_share", {}).items():
        share = shares.get(name, 0.0)
        if not wanted / _SHARE_FACTOR <= share <= wanted * _SHARE_FACTOR:
            report.doubts.append(f"{share:.1%} of the labelled pixels are {name}, but about {wanted:.1%} were expected")
