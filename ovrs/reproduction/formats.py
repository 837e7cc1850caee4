"""A reproduced table for the terminal, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

from tabulate import tabulate

from ovrs.config.papers import Column
from ovrs.reproduction.table import Cell, Line, Reproduction

FORMATS = ("table", "markdown", "csv", "json")
_NOTHING = "–"
_CSV_HEADER = (
    "paper", "table", "row", "label", "method", "column", "dataset", "metric", "unit", "in_domain",
    "published", "measured", "difference", "remarks", "reason",
)  # fmt: skip


class _Footnotes:
    """Numbers texts in the order in which they are first asked for."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, texts: tuple[str, ...]) -> str:
        """Return the marks of some texts, such as " [1][3]"; "" for none."""
        marks = "".join(f"[{self._numbers.setdefault(text, len(self._numbers) + 1)}]" for text in texts)
        return f" {marks}" if marks else ""

    def __iter__(self) -> Iterator[str]:
        return (f"[{number}] {text}" for text, number in self._numbers.items())


def render(reproduction: Reproduction, form: str = "table") -> str:
    """Return a reproduction as text in one of ``FORMATS``."""
    if form == "json":
        return json.dumps(_as_dict(reproduction), indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        return _as_csv(reproduction)
    return _as_page(reproduction, markdown=form == "markdown")


def _as_page(reproduction: Reproduction, markdown: bool) -> str:
    paper, table = reproduction.paper, reproduction.table
    notes = _Footnotes()
    rows = [row for line in reproduction.lines for row in _rows(line, notes)]
    headers = ["", "", *(f"{column.key}{_unit(column)}" for column in table.columns)]
    grid = tabulate(
        rows,
        headers,
        tablefmt="github" if markdown else "simple",
        disable_numparse=True,  # figures keep their trailing zeros
        colalign=("left", "left", *["right"] * len(table.columns)) if rows else None,
    )
    title = f"{paper.title}, {table.key}: {table.title}"
    facts = [f"Protocol: {text}" for text in (paper.protocol, table.protocol) if text]
    facts += [f"Note: {text}" for text in table.notes]
    facts += [f"Uncertain: {text}" for text in (table.uncertain, *_doubts(reproduction)) if text]
    if any(cell.in_domain for line in reproduction.lines for cell in line.cells):
        facts.append("* the row was trained on this data set" + _left_out(reproduction))
    paragraphs = [f"## {title}" if markdown else title, grid, *(["\n".join(notes)] if list(notes) else [])]
    if markdown:
        paragraphs[2:] = ["\n".join(f"- {text}" for text in notes)] if list(notes) else []
        return "\n\n".join([*paragraphs, *facts]) + "\n"
    return "\n\n".join(paragraphs) + "\n\n" + "\n".join(facts) + "\n"


def _rows(line: Line, notes: _Footnotes) -> Iterator[list[str]]:
    """Yield a row of the paper as up to three rows: published, measured, difference."""
    published = [f"{_shown(cell.published, cell.column)}{'*' if cell.in_domain else ''}" for cell in line.cells]
    reasons = tuple(dict.fromkeys(cell.reason for cell in line.cells))
    if len(reasons) == 1 and reasons[0]:
        yield [line.row.label + notes.mark(reasons), "published", *published]
        return
    yield [line.row.label, "published", *published]
    yield ["", "measured", *(_measured(cell, notes) for cell in line.cells)]
    if any(cell.difference is not None for cell in line.cells):
        yield ["", "difference", *(_shown(cell.difference, cell.column, "+") for cell in line.cells)]


def _measured(cell: Cell, notes: _Footnotes) -> str:
    if cell.measured is None:
        return notes.mark((cell.reason,)).strip() if cell.published is not None else ""
    return _shown(cell.measured, cell.column) + notes.mark(cell.differences)


def _shown(value: float | None, column: Column, sign: str = "") -> str:
    """Return a figure with two decimals if it is a percentage, else with four digits that count."""
    return _NOTHING if value is None else format(value, f"{sign}.2f" if column.unit == "percent" else f"{sign}.4g")


def _unit(column: Column) -> str:
    return f" ({column.unit})" if column.unit not in ("", "percent") else ""


def _doubts(reproduction: Reproduction) -> list[str]:
    """Return what is doubtful, or worth knowing, about the rows that were measured."""
    return [
        f"{line.row.label}: {text}"
        for line in reproduction.lines
        for text in (line.row.note, line.row.uncertain)
        if text
    ]


def _left_out(reproduction: Reproduction) -> str:
    return "; the mean leaves the figure out" if reproduction.table.mean_without_in_domain else ""


def _as_dict(reproduction: Reproduction) -> dict:
    paper, table = reproduction.paper, reproduction.table
    return {
        "paper": paper.key,
        "title": paper.title,
        "table": table.key,
        "caption": table.title,
        "protocol": [text for text in (paper.protocol, table.protocol) if text],
        "notes": list(table.notes),
        "uncertain": table.uncertain,
        "rows": [
            {
                "row": line.row.key,
                "label": line.row.label,
                "method": line.row.method,
                "train_set": line.row.train_set,
                "cells": [
                    {
                        "column": cell.column.key,
                        "unit": cell.column.unit,
                        "published": cell.published,
                        "measured": cell.measured,
                        "difference": cell.difference,
                        "in_domain": cell.in_domain,
                        "remarks": list(cell.differences),
                        "reason": cell.reason,
                    }
                    for cell in line.cells
                ],
            }
            for line in reproduction.lines
        ],
    }


def _as_csv(reproduction: Reproduction) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for line in reproduction.lines:
        for cell in line.cells:
            column, row = cell.column, line.row
            place = (reproduction.paper.key, reproduction.table.key, row.key, row.label, row.method)
            what = (column.key, column.dataset, column.metric, column.unit, cell.in_domain)
            figures = (cell.published, cell.measured, cell.difference)
            writer.writerow([*place, *what, *figures, "; ".join(cell.differences), cell.reason])
    return stream.getvalue()
