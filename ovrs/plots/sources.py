"""Results by what people call them: a stored record, a report, or all that the store has of a data set."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovrs.engine.testing import training_classes
from ovrs.errors import EvaluationError, nearest, shortened
from ovrs.evaluation import Result, ResultStore, protocol_key
from ovrs.evaluation.report import JSON_NAME
from ovrs.evaluation.seen import mark_seen
from ovrs.evaluation.store import differences, in_words, read_result

# What tells models apart and not how they are measured: themselves, and how they were trained.
_THE_MODELS = ("weights", "MODEL.", "INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.CROP.", "INPUT.COLOR_AUG")
_THE_MODELS += ("INPUT.RANDOM_", "INPUT.PAD_TO", "INPUT.PAD_VALUE")
KEY_SHOWN = 8  # characters of a record's name that are shown, and that people type


@dataclass(frozen=True)
class Measured:
    """A result as it is drawn.

    Attributes:
        result: what was measured.
        label: what to call it.
        seen: {class: whether training knew it}; ``None`` where the training sets are not known here.
    """

    result: Result
    label: str = ""
    seen: Mapping[str, bool] | None = None

    @classmethod
    def of(cls, result: Result) -> Measured:
        """Return a result under the name of its model and weights, classes marked by its training sets."""
        protocol = result.protocol
        datasets = protocol["config"].get("DATASETS", {})
        trained = training_classes(datasets.get("TRAIN", []), datasets.get("ROOT", ""))
        seen = None
        if trained is not None:
            marks = mark_seen(protocol["vocabulary"]["classes"], trained)
            seen = dict(zip(protocol["dataset"]["class_names"], marks, strict=True))
        head = protocol["config"].get("MODEL", {}).get("SEM_SEG_HEAD", {}).get("NAME", "model")
        weights = Path(protocol["weights"]["file"] or "").stem
        return cls(result, " ".join(filter(None, (head, weights, key_of(result)))), seen)


def key_of(result: Result) -> str:
    """Return the beginning of the name that a record has in the store."""
    return protocol_key(result.protocol)[:KEY_SHOWN]


def find_results(words: Sequence[str], store: ResultStore, dataset: str = "") -> list[Measured]:
    """Return the results that words name.

    Args:
        words: each a record's file; a ``report.json``, or the folder of one; the name of a data set, for all that the
            store has of it; or DATASET/KEY, where KEY is the beginning of a record's name.
        store: where the last two are looked up.
        dataset: of reports that hold several, the one that is meant.

    Raises:
        EvaluationError: a word names nothing, or results of several data sets.
    """
    found = [Measured.of(result) for word in words for result in _named(word, store, dataset)]
    sets = dict.fromkeys(each.result.dataset for each in found)
    if len(sets) > 1:
        raise EvaluationError(
            f"these are results of {len(sets)} data sets, which have classes of their own: {', '.join(sets)}. Choose "
            "one by --dataset."
        )
    return found


def results_of_report(path: Path) -> Iterator[Result]:
    """Yield the results that a ``report.json`` holds, one per data set.

    Raises:
        EvaluationError: the file is none.
    """
    try:
        entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["datasets"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise EvaluationError(f"{path} is no report of an evaluation ({error!r}); evaluate again.") from error
    for name, entry in entries.items():
        classes = {
            each: {figure: math.nan if value is None else value for figure, value in figures.items()}
            for each, figures in entry["classes"].items()
        }
        yield Result(name, entry["figures"], entry["protocol"], classes)


def check_same_protocol(results: Sequence[Measured], differing: bool) -> list[str]:
    """Refuse results that differ in more than the model, or say how they differ.

    Args:
        results: of one data set.
        differing: whether they may differ.

    Returns:
        One sentence for each that differs from the first.

    Raises:
        EvaluationError: they differ and must not, or have other classes.
    """
    first, *others = results
    sentences = []
    for other in others:
        names = [each.result.protocol["dataset"]["class_names"] for each in (first, other)]
        if names[0] != names[1]:
            raise EvaluationError(f"{first.label} and {other.label} have other classes: {names[0]} and {names[1]}.")
        found = differences(other.result.protocol, first.result.protocol, leave_out=_THE_MODELS)
        if found:
            sentences.append(f"{other.label} differs from {first.label}: {shortened(in_words(found), 6)}")
    if sentences and not differing:
        raise EvaluationError(
            f"results of different protocols are not drawn side by side: {'. '.join(sentences)}. With --differing they "
            "are, and this stands below the plot."
        )
    return sentences


def _named(word: str, store: ResultStore, dataset: str) -> Iterator[Result]:
    path = Path(word)
    if path.is_dir() and (path / JSON_NAME).is_file():
        path = path / JSON_NAME
    if path.name == JSON_NAME and path.is_file():
        held = {each.dataset: each for each in results_of_report(path)}
        if dataset and dataset not in held:
            raise EvaluationError(f"{path} has no data set {dataset}; it has {', '.join(held)}.")
        yield from [held[dataset]] if dataset else held.values()
        return
    if path.is_file():
        yield read_result(path)
        return
    known = list(store.results())
    name, _, key = word.partition("/")
    found = [each for each in known if each.dataset == name and protocol_key(each.protocol).startswith(key)]
    if not found:
        sets = sorted({each.dataset for each in known})
        what = f"the nearest data set there is {nearest(name, sets)}" if sets else "the store is empty"
        raise EvaluationError(
            f"{word} is neither a result, nor a folder with {JSON_NAME}, nor the data set (or DATASET/KEY) of a result "
            f"in {store.folder}; {what}. 'ovrs plot classes' lists them."
        )
    yield from found
