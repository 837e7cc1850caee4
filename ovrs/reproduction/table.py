"""The cells of a reproduced table: published, measured, and why a cell is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ovrs.config import load_paper
from ovrs.config.papers import MEAN, Column, Paper, Row, Table
from ovrs.errors import EvaluationError, shortened
from ovrs.evaluation import ResultStore
from ovrs.evaluation.store import mean
from ovrs.reproduction.counts import COUNTS, count, similarity
from ovrs.reproduction.subject import Subject


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        column: what it is.
        published: the printed figure; ``None`` where the paper prints none.
        measured: this project's figure in the column's unit; ``None`` where there is none.
        differences: how the measured protocol differs from the row's, in words.
        reason: why nothing is measured, with the remedy.
        in_domain: whether the row was trained on the column's data set.
    """

    column: Column
    published: float | None
    measured: float | None = None
    differences: tuple[str, ...] = ()
    reason: str = ""
    in_domain: bool = False

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.published is None or self.measured is None else self.measured - self.published


@dataclass(frozen=True)
class Line:
    """One row: its data and its cells in the table's order."""

    row: Row
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Reproduction:
    """A table with two figures in every cell."""

    paper: Paper
    table: Table
    lines: tuple[Line, ...] = field(default_factory=tuple)


def reproduce(
    paper: str, table: str, row: str = "", store: ResultStore | None = None, overrides: Sequence[str] = ()
) -> Reproduction:
    """Put what is stored, and what can be counted on the spot, beside a paper's figures. Nothing is evaluated.

    Args:
        paper: name or file of a paper, see :func:`ovrs.config.load_paper`.
        table: its key.
        row: one row alone; "" for all.
        store: of results; the default one if ``None``.
        overrides: changes of configuration keys for all rows.

    Raises:
        ConfigError: no such paper, table or row.
        EvaluationError: a damaged record.
    """
    store = store or ResultStore()
    subjects = subjects_of(paper, table, row, overrides)
    lines = tuple(
        Line(subject.row, tuple(_cell(subject, column, store) for column in subject.table.columns))
        for subject in subjects
    )
    return Reproduction(subjects[0].paper, subjects[0].table, lines)


def subjects_of(paper: str, table: str, row: str = "", overrides: Sequence[str] = ()) -> list[Subject]:
    """Return the rows of a table, or one of them, ready to be measured; raises as :func:`reproduce`."""
    loaded = load_paper(paper)
    keys = [row] if row else list(loaded.pick(table).rows)
    return [Subject(loaded, *loaded.row(table, key), tuple(overrides)) for key in keys]


def _cell(subject: Subject, column: Column, store: ResultStore) -> Cell:
    published = subject.row.figures.get(column.key)
    in_domain = bool(column.dataset) and column.dataset == subject.row.in_domain

    def empty(reason: str) -> Cell:
        return Cell(column, published, reason=reason, in_domain=in_domain)

    if subject.table.kind == "similarity":
        value, reason = similarity(subject)
        return Cell(column, published, value, reason=reason)
    if subject.table.kind == "datasets":
        return empty("a statement of the authors; 'ovrs datasets stats NAME' counts a data set that is here")
    if subject.cfg is None:
        return empty(subject.why_not())
    if column.metric in COUNTS:
        return Cell(column, published, *count(subject, column))
    if column.dataset == MEAN:
        return _mean_cell(subject, column, published, store)
    if not column.dataset:
        return empty(f"{column.key} is not measured by this project")
    if not column.registered:
        return empty(f"data set {column.dataset} is not among this project's")
    result, differences = subject.measurement(column.registered, store)
    if result is None:
        reason = subject.why_not() or subject.absence(column.registered) or "not measured yet: --run does it"
        return empty(reason)
    return Cell(column, published, result.figures[column.metric], tuple(differences), in_domain=in_domain)


def _mean_cell(subject: Subject, column: Column, published: float | None, store: ResultStore) -> Cell:
    columns = subject.columns_of_mean(column)
    if not columns:
        return Cell(column, published, reason="the paper does not say which cells this mean averages")
    found = {each: subject.measurement(each.registered, store) for each in columns if each.registered}
    missing = [each.dataset for each in columns if found.get(each, (None,))[0] is None]
    if missing:
        reason = subject.why_not() or f"the mean of {len(columns)} sets lacks {shortened(missing, 8)}"
        return Cell(column, published, reason=reason)
    remarks = dict.fromkeys(words for _, differences in found.values() for words in differences)
    try:
        value = mean([result for result, _ in found.values()], column.metric)
    except EvaluationError as error:
        return Cell(column, published, reason=str(error))
    if column.key in subject.row.mean_of_cells:
        remarks[f"the printed cells average {subject.row.mean_of_cells[column.key]:g}, not the printed mean"] = None
    return Cell(column, published, value, tuple(remarks))
