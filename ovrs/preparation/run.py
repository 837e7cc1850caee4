"""Carrying out what a recipe plans: nothing twice, nothing in part, and with a look at the disk before it starts."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ovrs.data.card import DatasetCard
from ovrs.data.work import progress, usable_cores
from ovrs.errors import DataError, nearest, shortened
from ovrs.preparation.jobs import Job, JobResult
from ovrs.preparation.manifest import IGNORED, Manifest, surprises
from ovrs.preparation.parallel import in_processes
from ovrs.preparation.recipe import Recipe
from ovrs.preparation.recipes import RECIPES
from ovrs.preparation.sources import SCRATCH_PREFIX, Source, existing_parent
from ovrs.preparation.space import readable_size, require_space

logger = logging.getLogger(__name__)

_SCRATCH = re.compile(re.escape(SCRATCH_PREFIX) + r"(\d+)-.*")
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp\.\w+")  # of ovrs.files.replacing


@dataclass(frozen=True)
class Summary:
    """What a call of :func:`prepare` found and did.

    Attributes:
        card: name of the data set.
        out: what its folders start from.
        counts: pairs per split, on disk now (``dry_run``: after a real run, at most).
        surprises: one line for every number of a split that is another than the card announces.
        ignored: share of ignored pixels per split, of what is on disk.
        jobs: original images that were planned.
        done: how many of them needed no work.
        bytes: about what the rest takes, or took, on disk.
        dry_run: nothing was written.
        manifest: the account of the prepared set.
    """

    card: str
    out: Path
    counts: dict[str, int]
    surprises: tuple[str, ...]
    ignored: dict[str, float]
    jobs: int
    done: int
    bytes: int
    dry_run: bool
    manifest: Path

    def __str__(self) -> str:
        lines = []
        for split, count in self.counts.items():
            verb = "would be" if self.dry_run else "are"
            ignored = "" if self.dry_run else f" ({self.ignored[split]:.1%} of their pixels are ignored)"
            lines.append(f"{self.card}_{split}: {count} pairs {verb} in {self.out}{ignored}")
        work = self.jobs - self.done
        if not work:
            lines.append(f"Nothing to write: all {self.jobs} originals were prepared before.")
        elif self.dry_run:
            lines.append(
                f"{work} of {self.jobs} originals to do, about {readable_size(self.bytes)}. Nothing was written."
            )
        else:
            lines.append(f"{work} of {self.jobs} originals done, {self.done} were prepared before.")
            lines.append(f"Checksums and pixels per class: {self.manifest}")
        return "\n".join(lines)


def recipe_for(card: DatasetCard) -> Recipe:
    """Return the recipe of a card's family.

    Raises:
        DataError: there is none.
    """
    family = str(card.source.get("family", ""))
    if family not in RECIPES or not card.splits:
        raise DataError(
            f"{card.name} ({card.path}) cannot be prepared: "
            + (
                f"its family is {family!r}, recipes exist for {', '.join(sorted(RECIPES))}."
                if card.splits
                else "it only documents names of classes. Prepare a data set that has splits."
            )
        )
    return RECIPES[family]


def find_card(name: str, cards: Iterable[DatasetCard]) -> DatasetCard:
    """Return the card with a name: its own, that of one of its splits, or an alias.

    Raises:
        DataError: no card has it.
    """
    known: dict[str, DatasetCard] = {}
    for card in cards:
        names = (card.name, *(f"{card.name}_{split}" for split in card.splits), *card.aliases)
        known.update(dict.fromkeys(names, card))
    if name not in known:
        raise DataError(f"unknown data set {name!r}; the nearest names are {nearest(name, known, 3)}.")
    return known[name]


def prepare(
    card: DatasetCard,
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    workers: int = 0,
    dry_run: bool = False,
    strict: bool = False,
) -> Summary:
    """Turn what the authors distribute into what a card reads.

    Finished files stay whatever happens, and a second call does only what is missing.

    Args:
        card: the data set.
        sources: downloaded folders and archives.
        out: what the card's folders start from; made if needed.
        workers: number of processes; 0 takes one per core.
        dry_run: look at everything, write nothing.
        strict: other numbers of pairs than the card announces are an error, not a warning.

    Raises:
        DataError: something is wrong with the source, the disk is too small, or the folder was prepared by other
            facts. The message names the file and the remedy.
    """
    recipe, out = recipe_for(card), Path(out).expanduser().absolute()
    workers = workers or usable_cores()
    if not dry_run:
        _sweep(card, out)
    manifest = Manifest(card, out)
    with Source(sources, out) as source:
        jobs = _planned(recipe, source, card)
        pending = [job for job in jobs if not manifest.is_done(job)]
        estimate = partial(_estimate, card=card)
        sizes = list(_with_progress(estimate, pending, workers, f"{card.name}: looking at"))
        needed = sum(size for _, _, size in sizes)
        if pending and not dry_run:
            source.verify(card.source.get("md5", {}))
            require_space(existing_parent(out), needed, f"preparing {card.name}")
            manifest.add(_with_progress(partial(_run, card=card, out=out), pending, workers, f"{card.name}: writing"))
            manifest.archives.update(path.name for path in source.archives)
        if manifest.is_open and not dry_run:
            manifest.save()
    if dry_run:
        for job, pairs, _ in sizes:
            manifest.results[job.stem] = JobResult(job.stem, job.splits, job.sources, pairs)
    counts, pixels = manifest.counts(), {split: manifest.pixels(split) for split in card.splits}
    unexpected = surprises(card, counts, manifest.originals())
    summary = Summary(
        card.name,
        out,
        counts,
        tuple(f"{card.name}_{split}: {text}" for split, texts in unexpected.items() for text in texts),
        {split: found[IGNORED] / max(sum(found.values()), 1) for split, found in pixels.items()},
        len(jobs),
        len(jobs) - len(pending),
        needed,
        dry_run,
        manifest.path,
    )
    if summary.surprises and strict and not dry_run:
        raise DataError(f"{'; '.join(summary.surprises)}. Is the download complete? Leave out --strict to accept it.")
    for surprise in summary.surprises:
        logger.warning("%s. A part of the data set, or another version?", surprise)
    return summary


def _planned(recipe: Recipe, source: Source, card: DatasetCard) -> list[Job]:
    jobs = [job for job in recipe.jobs(source, card) if job.splits]  # what belongs to no split of the card is left
    if not jobs:
        raise DataError(f"{source} holds nothing that belongs to {card.name}; fetch {recipe.download}.")
    stems = [job.stem for job in jobs]
    if len(set(stems)) < len(stems):
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        raise DataError(
            f"{source}: several originals would be called {shortened(twice)}; give --source only one of each."
        )
    return jobs


def _with_progress(function: partial, jobs: Sequence[Job], workers: int, title: str) -> Iterable:
    if not jobs:
        return ()
    workers = min(workers, len(jobs))
    return progress(in_processes(function, jobs, workers), title, len(jobs), "original")


def _estimate(job: Job, card: DatasetCard) -> tuple[Job, int, int]:
    return job, *job.estimate(card)


def _run(job: Job, card: DatasetCard, out: Path) -> JobResult:
    return job.run(card, out)


def _sweep(card: DatasetCard, out: Path) -> None:
    """Remove what killed runs left half-written."""
    for entry in _entries(existing_parent(out)):
        if (match := _SCRATCH.fullmatch(entry.name)) and not _is_alive(int(match[1])):
            shutil.rmtree(entry.path, ignore_errors=True)
    for folder in {folder for split in card.splits.values() for folder in (split.images, split.labels) if folder}:
        for entry in _entries(out / folder):
            if (match := _TEMPORARY.fullmatch(entry.name)) and not _is_alive(int(match[1])):
                Path(entry.path).unlink(missing_ok=True)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # elsewhere asking would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it exists, but belongs to somebody else
        return True
    return True
