"""Every evaluation is a record: one JSON file for each, found again by what it depends on.

The address of a result is the key of its protocol (:func:`ovrs.evaluation.protocol_key`): data set, vocabulary,
scoring, inference, model and weights. Where and when it was measured is kept beside it, but does not count: the
same evaluation repeated is the same record.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovrs.errors import EvaluationError, shortened
from ovrs.evaluation.confusion import FIGURES, by_class
from ovrs.evaluation.protocol import protocol_key, protocol_values
from ovrs.files import replacing

FOLDER_VARIABLE = "OVRS_RESULTS"
DEFAULT_FOLDER = "output/results"
_ABSENT = "nothing"
_MEMBER = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Result:
    """The figures of one model on one data set.

    Attributes:
        dataset: registered name.
        figures: the main figures, percent.
        classes: {class name: {figure: percent, or NaN where the class does not count}}.
        protocol: what :func:`ovrs.evaluation.describe_protocol` returned.
        speed: images per second; NaN if not measured.
    """

    dataset: str
    figures: Mapping[str, float]
    protocol: Mapping[str, Any]
    classes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    speed: float = math.nan

    @classmethod
    def of(cls, results: Mapping[str, Mapping[str, float]], protocol: Mapping[str, Any]) -> Result:
        """Return the record of what :func:`ovrs.evaluation.evaluate_dataset` returned."""
        figures = results["sem_seg"]
        return cls(
            dataset=protocol["dataset"]["name"],
            figures={figure: figures[figure] for figure in FIGURES},
            classes=by_class(figures),
            speed=results["speed"]["images_per_second"],
            protocol=protocol,
        )


class ResultStore:
    """A folder of results.

    Args:
        folder: "" reads ``$OVRS_RESULTS``, then takes ``output/results``.
    """

    def __init__(self, folder: str | Path = "") -> None:
        self.folder = Path(folder or os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()

    def add(self, result: Result) -> Path:
        """Write a result, whole or not at all; a record of the same key is replaced. Call it in one process."""
        path = self._path(result.protocol)
        content = {
            "dataset": result.dataset,
            "figures": _without_nan(result.figures),
            "classes": {name: _without_nan(figures) for name, figures in result.classes.items()},
            "images_per_second": None if math.isnan(result.speed) else result.speed,
            "protocol": result.protocol,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        with replacing(path) as temporary:
            temporary.write_text(f"{text}\n", encoding="utf-8")
        return path

    def get(self, protocol: Mapping[str, Any]) -> Result | None:
        """Return the result that was measured under exactly this protocol; ``None`` without one."""
        path = self._path(protocol)
        return read_result(path) if path.is_file() else None

    def results(self, dataset: str = "") -> Iterator[Result]:
        """Yield all results, or those of one data set, in a fixed order.

        Raises:
            EvaluationError: a file of the folder is no result.
        """
        folder = self.folder / dataset
        for path in sorted(folder.glob("*.json" if dataset else "*/*.json")):
            yield read_result(path)

    def _path(self, protocol: Mapping[str, Any]) -> Path:
        return self.folder / protocol["dataset"]["name"] / f"{protocol_key(protocol)[:24]}.json"


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], leave_out: Iterable[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Return in which entries two protocols differ.

    Args:
        ours: a protocol.
        theirs: another.
        leave_out: beginnings of entries that may differ.

    Returns:
        {entry as in :func:`ovrs.evaluation.protocol_values`, lists whole: (ours, theirs)}; "nothing" stands for an
        entry that one of them lacks.
    """
    left_out = tuple(leave_out)
    first, second = _whole_lists(protocol_values(ours)), _whole_lists(protocol_values(theirs))
    return {
        entry: (first.get(entry, _ABSENT), second.get(entry, _ABSENT))
        for entry in dict.fromkeys((*first, *second))
        if first.get(entry, _ABSENT) != second.get(entry, _ABSENT) and not entry.startswith(left_out)
    }


def in_words(found: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return what :func:`differences` found as short sentences.

    Examples:
        >>> in_words({"TEST.CROP_PADDING": (True, False)})
        ['TEST.CROP_PADDING is True, not False']
    """
    return [f"{entry} is {_shown(ours)}, not {_shown(theirs)}" for entry, (ours, theirs) in found.items()]


def mean(results: Iterable[Result], figure: str = "mIoU") -> float:
    """Return the plain mean of a figure over results of several data sets.

    Raises:
        EvaluationError: no result, or results that differ in more than the data set and its vocabulary: such a
            mean would compare nothing.
    """
    results = list(results)
    if not results:
        raise EvaluationError("there is no result to average.")
    first, *others = results
    for other in others:
        found = differences(first.protocol, other.protocol, leave_out=("dataset.", "vocabulary.classes"))
        if found:
            raise EvaluationError(
                f"the results on {first.dataset} and {other.dataset} were measured under different protocols and are "
                f"not averaged: {shortened(in_words(found), 3)}."
            )
    return sum(result.figures[figure] for result in results) / len(results)


def read_result(path: Path) -> Result:
    """Return a stored result.

    Raises:
        EvaluationError: the file is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Result(
            dataset=content["dataset"],
            figures=_with_nan(content["figures"]),
            classes={name: _with_nan(figures) for name, figures in content["classes"].items()},
            speed=math.nan if content["images_per_second"] is None else content["images_per_second"],
            protocol=content["protocol"],
        )
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path} is no stored result ({error!r}); delete it.") from error


def _whole_lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """Gather the members ``KEY[0]``, ``KEY[1]`` … of lists again."""
    whole: dict[str, Any] = {}
    for key, value in values.items():
        if _MEMBER.search(key):
            whole.setdefault(_MEMBER.sub("", key), []).append(value)
        else:
            whole[key] = value
    return whole


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{shortened(value, 4)}]"
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text or "empty"


def _without_nan(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _with_nan(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in figures.items()}
