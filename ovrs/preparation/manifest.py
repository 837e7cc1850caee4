"""The account of a prepared data set: what was written, from what, by which facts."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ovrs
from ovrs.data.card import DatasetCard
from ovrs.data.encodings import IdEncoding
from ovrs.errors import DataError, shortened
from ovrs.files import replacing
from ovrs.preparation.jobs import Job, JobResult
from ovrs.structures import IGNORE_LABEL

IGNORED = "(ignored)"

_WHOLE: dict[str, Any] = {}  # all of it
_TILING = {"size": _WHOLE, "stride": _WHOLE, "edge": _WHOLE}
# The facts that decide what is written, and of mappings the keys that do ("*": each). A change elsewhere is prose.
DECIDING: dict[str, Any] = {
    **dict.fromkeys(("labels", "splits", "family", "original_to_index", "source_colours", "colour_threshold"), _WHOLE),
    **dict.fromkeys(("label_set", "side", "keep_empty", "split_ids", "other_ids", "original_splits"), _WHOLE),
    **dict.fromkeys(("prefix", "draw"), _WHOLE),
    "tiling": _TILING,
    "merge_map": {"*": {"prefix": _WHOLE, "map": _WHOLE, "colour_threshold": _WHOLE, "tiling": _TILING}},
}


class Manifest:
    """What is known to be finished, one entry per job.

    While work goes on, every finished job is one line of a journal beside the manifest; at the end the journal
    goes into the manifest. After a kill the next run reads both and does only what is missing.

    Args:
        card: the data set.
        out: what the card's folders start from.

    Attributes:
        path: the file.
        results: {name of the job: what it left}.
        archives: names of the archives that it was made from.

    Raises:
        DataError: the file is damaged, or tells of a preparation by other facts than those of the card.
    """

    def __init__(self, card: DatasetCard, out: Path) -> None:
        self._card, self._out = card, out
        first_folder = next(iter(card.splits.values())).images.split("/")[0]
        self.path = out / first_folder / f"manifest-{card.name}.json"
        self._journal = self.path.with_suffix(".journal")
        self.results: dict[str, JobResult] = {}
        self.archives: set[str] = set()
        for content in (*self._saved(), *self._journaled()):
            result = _result(content)
            self.results[result.stem] = result

    def is_done(self, job: Job) -> bool:
        """Whether a job was finished, from the same originals, and all its files are still there in full."""
        result = self.results.get(job.stem)
        if result is None or (result.sources, result.splits) != (job.sources, job.splits):
            return False
        return not self.missing_files(result)

    def missing_files(self, result: JobResult) -> list[str]:
        """Return the files of a job that are not there, or not of the size that they had."""
        return [path for path, (size, _) in result.files.items() if _size(self._out / path) != size]

    def add(self, results: Iterable[JobResult]) -> None:
        """Enter finished jobs, each on disk before the next is asked for."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a", encoding="utf-8") as journal:
            if not self._journal.stat().st_size:
                journal.write(json.dumps({"facts": self._facts()}) + "\n")
            for result in results:
                self.results[result.stem] = result
                journal.write(json.dumps(asdict(result)) + "\n")
                journal.flush()

    @property
    def is_open(self) -> bool:
        """Whether there is finished work that only the journal knows."""
        return self._journal.exists()

    def save(self) -> None:
        """Write the manifest, without jobs whose files are gone, and remove the journal."""
        self.results = {stem: result for stem, result in sorted(self.results.items()) if not self.missing_files(result)}
        content = {
            "card": self._card.name,
            "title": self._card.title,
            "homepage": self._card.homepage,
            "licence": self._card.licence,
            "archives": sorted(self.archives),
            "tool": {"ovrs": ovrs.__version__, "python": platform.python_version()},
            "facts": self._facts(),
            "counts": self.counts(),
            "expected_counts": expected_counts(self._card),
            "pixels": {split: self.pixels(split) for split in self.counts()},
            "jobs": [asdict(result) for result in self.results.values()],
        }
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        self._journal.unlink(missing_ok=True)

    def counts(self) -> dict[str, int]:
        """Return the number of pairs per split of the card."""
        counts = dict.fromkeys(self._card.splits, 0)
        for result in self.results.values():
            for split in result.splits:
                counts[split] += result.pairs
        return counts

    def originals(self) -> dict[str, int]:
        """Return the number of originals per split of the card, however many pairs they were cut into."""
        return {split: sum(split in result.splits for result in self.results.values()) for split in self._card.splits}

    def pixels(self, split: str) -> dict[str, int]:
        """Return the number of pixels per class, and of those that are ignored."""
        values: Counter[int] = Counter()
        for result in self.results.values():
            if split in result.splits:
                values.update(result.values)
        return class_pixels(self._card, values)

    def _facts(self) -> dict[str, Any]:
        """Return all that decides what is written, as JSON gives it back."""
        card = self._card
        facts = {
            "labels": asdict(card.labels),
            "splits": {
                name: [split.images, split.image_suffix, split.labels, split.label_suffix]
                for name, split in card.splits.items()
            },
            **card.source,
        }
        return _deciding(json.loads(json.dumps(facts)))

    def _saved(self) -> list[dict]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self._require_same_facts(content["facts"])
            self.archives.update(content["archives"])
            return content["jobs"]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.path} is damaged ({error!r}); delete it and prepare the data set again.") from None

    def _journaled(self) -> list[dict]:
        try:
            lines = self._journal.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:  # cut off by a kill; the job is done again
                continue
        if entries:
            self._require_same_facts(entries[0].get("facts"))
        return entries[1:]

    def _require_same_facts(self, facts: Any) -> None:
        own, theirs = self._facts(), _deciding(facts) if isinstance(facts, dict) else {}
        if theirs == own:
            return
        keys = sorted(key for key in own.keys() | theirs.keys() if theirs.get(key) != own.get(key))
        raise DataError(
            f"{self.path.parent} was prepared by other facts than those of {self._card.path} (they differ in "
            f"{shortened(keys)}). Remove the folder, or choose another place with --out."
        )


def _deciding(facts: Any, keys: Mapping[str, Any] = DECIDING) -> Any:
    """Leave out of facts what describes and does not steer, such as where a number comes from."""
    if not keys or not isinstance(facts, dict):
        return facts
    if "*" in keys:
        return {name: _deciding(part, keys["*"]) for name, part in facts.items() if isinstance(part, dict)}
    return {key: _deciding(facts[key], keys[key]) for key in keys if key in facts}


def class_pixels(card: DatasetCard, values: dict[int, int]) -> dict[str, int]:
    """Turn pixels per stored id into pixels per class; ids that the card does not list go by their number."""
    assert isinstance(card.labels, IdEncoding)  # OriginalLabels refuses others
    indices = {IGNORE_LABEL: IGNORE_LABEL, **dict(card.labels.table)}
    pixels = {card.display_names[index]: 0 for index in card.labelled_classes}
    pixels[IGNORED] = 0
    for value, count in sorted(values.items()):
        index = indices.get(value)
        name = str(value) if index is None else IGNORED if index == IGNORE_LABEL else card.display_names[index]
        pixels[name] = pixels.get(name, 0) + count
    return pixels


def expected_counts(card: DatasetCard) -> dict[str, int]:
    """Return the pairs per split that ``source.counts`` of the card announces."""
    counts = card.source.get("counts", {})
    return {split: counts[split] for split in card.splits if isinstance(counts.get(split), int)}


def surprises(card: DatasetCard, pairs: Mapping[str, int], originals: Mapping[str, int]) -> dict[str, list[str]]:
    """Compare numbers per split with ``source.counts.<split>`` and ``source.counts.<split>_originals`` of a card.

    Args:
        card: the data set; what it does not count may be any number.
        pairs: images with labels, as prepared.
        originals: the authors' images that they were made from; splits of which that is not known are left out.

    Returns:
        {split: what is other than the card says, in words}.
    """
    counts = card.source.get("counts", {})
    found: dict[str, list[str]] = {}
    for split in card.splits:
        numbers = ((pairs, split, "pairs"), (originals, f"{split}_originals", "original images"))
        found[split] = [
            f"{there[split]} {what}, but {counts[key]} were expected"
            for there, key, what in numbers
            if split in there and isinstance(counts.get(key), int) and there[split] != counts[key]
        ]
    return found


def _result(content: dict) -> JobResult:
    result = JobResult(**content)
    result.splits = tuple(result.splits)
    result.sources = tuple((name, size) for name, size in result.sources)
    result.values = {int(value): count for value, count in result.values.items()}
    result.files = {path: (size, digest) for path, (size, digest) in result.files.items()}
    return result


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
