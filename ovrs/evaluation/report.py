"""The results of one run over several data sets, as tables, JSON and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from ovrs.evaluation.confusion import CLASS_FIGURES, FIGURES, EvaluationError, by_class
from ovrs.evaluation.seen import SEEN_FIGURES, mark_seen, seen_and_unseen
from ovrs.files import replacing

JSON_NAME = "report.json"
MARKDOWN_NAME = "report.md"
AVERAGE = "average"
NO_VALUE = "–"
_YES_NO = {True: "yes", False: "no"}


@dataclass(frozen=True)
class _Entry:
    figures: dict[str, float]
    classes: dict[str, dict[str, float]]
    protocol: dict[str, Any]
    seen: dict[str, bool] | None  # per class: whether training knew it

    def seen_figures(self) -> dict[str, float]:
        ious = {name: figures["IoU"] for name, figures in self.classes.items()}
        return seen_and_unseen(ious, self.seen) if self.seen else {}

    def absent(self) -> list[str]:
        """The classes without a labelled pixel, by name."""
        return [name for name, figures in self.classes.items() if math.isnan(figures.get("ACC", 0.0))]


class Report:
    """Collects the figures of several data sets and writes them with the protocol behind them.

    Args:
        title: heading of the Markdown page.
        left_out_of_average: data sets that are listed but do not enter the average; HG-RSOVSSeg leaves the
            training set's own score out.
        training_classes: class strings that the model was trained on; ``None`` if they are not known. With them,
            classes are marked as seen or unseen, and their means are given.
    """

    def __init__(
        self,
        title: str = "Evaluation",
        left_out_of_average: Collection[str] = (),
        training_classes: Collection[str] | None = None,
    ) -> None:
        self.title = title
        self._left_out = frozenset(left_out_of_average)
        self._training_classes = training_classes
        self._entries: dict[str, _Entry] = {}

    def add(self, dataset_name: str, metrics: Mapping[str, float], protocol: Mapping[str, Any]) -> None:
        """Add one data set.

        Args:
            dataset_name: its registered name.
            metrics: the ``sem_seg`` part of what :meth:`SegmentationEvaluator.evaluate` returns, in percent.
            protocol: what :func:`describe_protocol` returns.

        Raises:
            EvaluationError: the data set is in the report already, or a main figure is missing.
        """
        if dataset_name in self._entries:
            raise EvaluationError(f"data set {dataset_name} is in the report already; list it once in DATASETS.TEST.")
        missing = [figure for figure in FIGURES if figure not in metrics]
        if missing:
            raise EvaluationError(
                f"data set {dataset_name}: the results lack {', '.join(missing)}; hand over the 'sem_seg' part of "
                "what SegmentationEvaluator.evaluate() returns."
            )
        classes = by_class(metrics)
        figures = {figure: metrics[figure] for figure in FIGURES}
        seen = None
        if self._training_classes is not None and classes:
            marks = mark_seen(protocol["vocabulary"]["classes"], self._training_classes)
            seen = dict(zip(protocol["dataset"]["class_names"], marks, strict=True))
        self._entries[dataset_name] = _Entry(figures, classes, dict(protocol), seen)

    def averaged_sets(self) -> list[str]:
        """Return the names of the data sets that enter the average."""
        return [name for name in self._entries if name not in self._left_out]

    def average(self) -> dict[str, float]:
        """Return the plain mean over the data sets of each main figure; empty if no set enters it."""
        names = self.averaged_sets()
        if not names:
            return {}
        return {figure: sum(self._entries[name].figures[figure] for name in names) / len(names) for figure in FIGURES}

    def results(self) -> dict[str, float]:
        """Return the main figures, flat, for loggers: ``{"potsdam_val/mIoU": 61.3, "average/mIoU": 58.1, ...}``.

        Keys of the average are missing while no data set enters it.
        """
        rows = {name: entry.figures for name, entry in self._entries.items()} | {AVERAGE: self.average()}
        return {f"{name}/{figure}": value for name, figures in rows.items() for figure, value in figures.items()}

    def table(self) -> str:
        """Return the main figures as a table: a row for each data set, and the average."""
        rows = [[_in_table(name), *_cells(entry.figures, FIGURES)] for name, entry in self._entries.items()]
        average = self.average()
        if average:
            rows.append([AVERAGE, *_cells(average, FIGURES)])
        return _table(["data set", *FIGURES], rows)

    def seen_table(self) -> str:
        """Return the mean IoU over the classes that training knew, over the others, and the harmonic mean of both."""
        entries = {name: entry for name, entry in self._entries.items() if entry.seen}
        rows = [
            [
                _in_table(name),
                *_cells(entry.seen_figures(), SEEN_FIGURES),
                f"{sum(entry.seen.values())} of {len(entry.seen)}",
            ]
            for name, entry in entries.items()
        ]
        return _table(["data set", *SEEN_FIGURES, "seen classes"], rows) if rows else ""

    def class_table(self, dataset_name: str) -> str:
        """Return the figures of every class of one data set as a table; a dash for classes that do not count."""
        entry = self._entries[dataset_name]
        rows = [
            [_in_table(name), *_cells(figures, CLASS_FIGURES), *([_YES_NO[entry.seen[name]]] if entry.seen else [])]
            for name, figures in entry.classes.items()
        ]
        return _table(["class", *CLASS_FIGURES, *(["seen in training"] if entry.seen else [])], rows)

    def to_json(self) -> str:
        """Return everything as JSON, figures in full precision, null where a class does not count."""
        content = {
            "title": self.title,
            AVERAGE: {"datasets": self.averaged_sets(), "figures": self.average()},
            "datasets": {
                name: {
                    "figures": entry.figures,
                    "classes": entry.classes,
                    "absent_classes": entry.absent(),
                    "seen_in_training": entry.seen and {"classes": entry.seen, "figures": entry.seen_figures()},
                    "protocol": entry.protocol,
                }
                for name, entry in self._entries.items()
            },
        }
        return json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """Return a readable page: main figures, figures of every class, and the protocol."""
        shared = self._shared_protocol()
        names = ", ".join(self.averaged_sets()) or "no data set"
        explanation = f"All figures in percent. The average is the plain mean over: {names}."
        parts = [f"# {self.title}", self.table(), explanation, self.seen_table()]
        for name, entry in self._entries.items():
            own = {key: value for key, value in entry.protocol.items() if key not in shared}
            absent = ", ".join(entry.absent())
            parts += [f"## {name}", self.class_table(name), f"No labelled pixel of: {absent}." if absent else ""]
            parts += [_protocol(own)]
        parts += ["## Protocol of all data sets", _protocol(shared)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def write(self, folder: str | Path) -> tuple[Path, Path]:
        """Write ``report.json`` and ``report.md``; call it on the main process only.

        Each file is replaced as a whole or not at all.

        Args:
            folder: created if it does not exist.

        Returns:
            The paths of the two files.
        """
        folder = Path(folder)
        contents = {folder / JSON_NAME: self.to_json(), folder / MARKDOWN_NAME: self.to_markdown()}
        for path, text in contents.items():
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return folder / JSON_NAME, folder / MARKDOWN_NAME

    def _shared_protocol(self) -> dict[str, Any]:
        """The protocol sections that are the same for all data sets."""
        first, *others = [entry.protocol for entry in self._entries.values()] or [{}]
        return {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}


def _table(headers: list[str], rows: list[list[str]]) -> str:
    alignment = ["left"] + ["right"] * (len(headers) - 1)
    # Cells are formatted already; parsing them as numbers would drop trailing zeros.
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=alignment if rows else None)


def _cells(figures: Mapping[str, float], names: Collection[str]) -> list[str]:
    return [f"{figures[name]:.2f}" if math.isfinite(figures[name]) else NO_VALUE for name in names]


def _in_table(text: str) -> str:
    return text.replace("|", "\\|")


def _protocol(sections: Mapping[str, Any]) -> str:
    """Render protocol sections for people; the configuration, which is long, as the YAML that it came from."""
    short = {key: value for key, value in sections.items() if key != "config"}
    parts = ["\n".join(_bullets(short))]
    if "config" in sections:
        # Lists in one line each.
        text = yaml.safe_dump(sections["config"], sort_keys=False, default_flow_style=None, width=120)
        parts.append(f"The configuration:\n\n```yaml\n{text}```")
    return "\n\n".join(part for part in parts if part)


def _bullets(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """Render nested dicts as nested Markdown lists."""
    lines = []
    for key, item in value.items():
        label = f"{indent}- {key.replace('_', ' ')}:"
        if isinstance(item, Mapping):
            lines += [label, *_bullets(item, indent + "  ")]
        elif isinstance(item, (list, tuple)):
            lines.append(f"{label} {', '.join(_code(element) for element in item) or NO_VALUE}")
        else:
            lines.append(f"{label} {NO_VALUE if item in (None, '') else _code(item)}")
    return lines


def _code(value: Any) -> str:
    return f"`{value}`"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
