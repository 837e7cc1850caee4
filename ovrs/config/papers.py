"""One file per paper: its tables, their rows, the figures that it prints, and how each row is run here.

    title: ...                        # and year, venue, arxiv, doi, code, source, protocol
    datasets:                         # the columns' data sets: how the paper calls them, our registered name
      Potsdam: {label: Potsdam, ovrs: rskt_potsdam_6_all}
    _BASE_: ../dr_seg/vitl14_336_dlrsd.yaml      # the recipe that rows start from; tables and rows may name another
    tables:
      table6:
        title: Neighbours per node of the graph
        columns: [mean/mIoU, mean/mACC]          # DATASET/METRIC; DATASET alone where there is one metric
        mean_over: [Potsdam, VDD]
        common: {method: DR-Seg, train_set: DLRSD}        # facts of all its rows
        config: {DATASETS.TEST: [rskt_potsdam_6_all, rskt_vdd_7_all]}     # differences of all its rows
        rows:
          k_20:
            label: k = 20
            config: {MODEL.DR_SEG.PDGR.TOPK: 20}          # what this row changes; {} for the base itself
            figures: {mean/mIoU: 37.57, mean/mACC: 55.55}

A row without ``config`` is of a model that this project does not have: its figures are quoted from the paper.
``_BASE_: ":table1/other_row"`` starts from another row of the same file. Any file of this form works, a shipped one
or your own sweep.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovrs.config.names import configs_folder, find_config
from ovrs.errors import ConfigError, nearest, shortened
from ovrs.plain_yaml import read_plain_yaml

MEAN = "mean"  # the data set of columns that average


@dataclass(frozen=True)
class Column:
    """What the figures of one column are.

    Attributes:
        key: its name in ``figures``.
        dataset: the paper's key of the data set, ``"mean"`` for an average, ``""`` for figures of no data set.
        metric: ``mIoU``, ``fwIoU``, ``mACC`` as in a report; else the column's own name (``params_M``).
        unit: ``percent``, ``GFLOP`` …; ``""`` for plain numbers.
        registered: the registered name of the data set, where this project has it.
    """

    key: str
    dataset: str
    metric: str
    unit: str
    registered: str


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        key: its name within the table.
        label: what the paper calls it.
        config: differences from the base (nested or dotted keys); ``None`` where this project cannot run it.
        base: name of the configuration that it starts from.
        figures: the printed numbers by column; a missing one is a gap in the paper's table.
        method: the model.
        backbone: its vision-language model.
        prior: its second tower.
        train_set: what it was trained on, in the paper's words.
        in_domain: the data set that shares its training data.
        checkpoint: the released weights behind the row, a name of the catalogue.
        checkpoint_config: the configuration that reads them, where it is not the row itself.
        mean_of_cells: what the cells average by column, where the printed mean is another number.
        stated: what the text says about a value that only a picture shows.
        note: anything else worth knowing.
        uncertain: what is doubtful about it.
    """

    key: str
    label: str = ""
    config: Mapping[str, Any] | None = None
    base: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    method: str = ""
    backbone: str = ""
    prior: str = ""
    train_set: str = ""
    in_domain: str = ""
    checkpoint: str = ""
    checkpoint_config: str = ""
    mean_of_cells: Mapping[str, float] = field(default_factory=dict)
    stated: str = ""
    note: str = ""
    uncertain: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a paper (or a figure with numbers, or of a README).

    Attributes:
        key: its name within the paper.
        title: what it shows.
        kind: ``accuracy``, ``ablation``, ``cost``, ``checkpoints`` …; ``own`` for experiments that no paper has.
        columns: in printed order.
        rows: by key, in printed order.
        protocol: how the figures were made.
        mean_of: the cells that a printed mean averages, by column.
        mean_without_in_domain: whether a row's printed mean leaves its ``in_domain`` cell out.
        mean_over: the data sets behind means whose single values are not printed.
        notes: facts about the table.
        uncertain: what is doubtful about it.
        counting: how cells are counted that need no data set: ``classes`` and ``size`` of the image, whether ``text``
            is encoded and ``norms`` count (see :mod:`ovrs.measure.analysis`), ``config`` changes, a ``note``; for
            similarities of label sets the training set that they are taken ``against``, and the ``config`` whose
            text tower encodes.
        in_text: numbers of the running text: ``what``, ``value``, ``unit`` and the arithmetic behind them.
        config: differences that all rows share; each row's come after them.
    """

    key: str
    title: str
    rows: Mapping[str, Row]
    kind: str = "own"
    columns: tuple[Column, ...] = ()
    protocol: str = ""
    mean_of: Mapping[str, Sequence[str]] = field(default_factory=dict)
    mean_without_in_domain: bool = False
    mean_over: Sequence[str] = ()
    notes: Sequence[str] = ()
    uncertain: str = ""
    counting: Mapping[str, Any] = field(default_factory=dict)
    in_text: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def cells_of_mean(self, row: Row, column: str) -> tuple[str, ...]:
        """Return the columns whose average the printed mean of a row is; () where they are not printed."""
        left_out = row.in_domain if self.mean_without_in_domain else None
        datasets = {column.key: column.dataset for column in self.columns}
        cells = self.mean_of.get(column, ())
        return tuple(cell for cell in cells if cell in row.figures and datasets[cell] != left_out)


@dataclass(frozen=True)
class Paper:
    """What a file of tables holds; the attributes are the file's own keys.

    ``datasets`` and ``training_sets`` map the paper's keys to ``label``, ``ovrs`` (the registered name) and ``note``.
    """

    key: str
    file: Path
    tables: Mapping[str, Table]
    title: str = ""
    year: int = 0
    venue: str = ""
    arxiv: str = ""
    doi: str = ""
    code: str = ""
    source: str = ""
    protocol: str = ""
    datasets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    training_sets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    figures_without_numbers: Sequence[str] = ()

    def pick(self, table: str) -> Table:
        """Return a table.

        Raises:
            ConfigError: the paper has no such table; the message lists what there is.
        """
        return _pick(self.tables, table, f"{self.file}: table")

    def row(self, table: str, row: str) -> tuple[Table, Row]:
        """Return a row and its table.

        Raises:
            ConfigError: the paper has no such table, or the table no such row; the message lists what there is.
        """
        found = self.pick(table)
        return found, _pick(found.rows, row, f"{self.file}:{table}: row")


def list_papers() -> list[str]:
    """Return the names of the shipped papers, sorted: what :func:`load_paper` takes."""
    return sorted(file.stem for file in (configs_folder() / "papers").glob("*.yaml"))


def load_paper(name: str | Path) -> Paper:
    """Read a file of tables.

    Args:
        name: of a shipped paper (``dr_seg``), or whatever :func:`ovrs.config.names.find_config` takes.

    Raises:
        ConfigError: there is no such file, or it is not of the form that this module describes.
    """
    shipped = configs_folder() / "papers" / f"{name}.yaml"
    file = shipped if shipped.is_file() else find_config(name).file
    return read_paper(file, read_plain_yaml(file, "config file", ConfigError))


def read_paper(file: Path, content: Any) -> Paper:
    """Return what the content of ``file`` means; raises as :func:`load_paper`."""
    where = str(file)
    values = _fields(Paper, content, where)
    base, datasets = values.pop("base", ""), values.get("datasets", {})
    tables = {
        str(key): _table(str(key), table, base, datasets, f"{where}: {key}")
        for key, table in _mapping(values["tables"], f"{where}: tables").items()
    }
    return Paper(**values | {"key": file.stem, "file": file, "tables": tables})


def _table(key: str, content: Any, base: str, datasets: Mapping[str, Mapping[str, str]], where: str) -> Table:
    values = _fields(Table, content, where, also=("metrics", "unit", "units", "common"))
    base, common = values.pop("base", base), values.pop("common", {})
    metrics, unit, units = values.pop("metrics", ["mIoU"]), values.pop("unit", ""), values.pop("units", {})
    columns = tuple(_column(str(name), datasets, metrics, units.get(name, unit)) for name in values.get("columns", ()))
    rows = {
        str(name): _row(str(name), _mapping(row, f"{where}/{name}"), base, common, columns, f"{where}/{name}")
        for name, row in _mapping(values["rows"], f"{where}: rows").items()
    }
    return Table(**values | {"key": key, "columns": columns, "rows": rows})


def _column(key: str, datasets: Mapping[str, Mapping[str, str]], metrics: Sequence[str], unit: str) -> Column:
    dataset, slash, metric = key.partition("/")
    if not slash and dataset not in (*datasets, MEAN):
        dataset, metric = "", key
    return Column(key, dataset, metric or metrics[0], unit, datasets.get(dataset, {}).get("ovrs", ""))


def _row(key: str, content: dict, base: str, common: Mapping[str, Any], columns: Sequence[Column], where: str) -> Row:
    values = _fields(Row, {**common, **content}, where)
    row = Row(**{"base": base, "label": key, **values, "key": key})
    known = [column.key for column in columns]
    for column in row.figures:
        if column not in known:
            raise ConfigError(f"{where}: the table has no column {column}; its columns are {', '.join(known)}.")
    if row.config is not None and not row.base:
        raise ConfigError(f"{where}: no configuration to start from; write _BASE_ in the row, its table or at the top.")
    return row


def _fields(kind: type, content: Any, where: str, also: Sequence[str] = ()) -> dict[str, Any]:
    """Return the entries of a mapping, checked against the attributes of a class; ``_BASE_`` as ``base``."""
    own = {"key", "file", "base"}
    fields = [item for item in dataclasses.fields(kind) if item.name not in own]
    known = {"_BASE_", *also, *(item.name for item in fields)}
    values = {str(key): value for key, value in _mapping(content, where).items()}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key}. The nearest valid key is {nearest(key, known)}.")
    missing = [
        item.name
        for item in fields
        if item.name not in values and item.default is item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: {shortened(missing)} must be given.")
    if "_BASE_" in values:
        values["base"] = values.pop("_BASE_")
    return values


def _mapping(content: Any, where: str) -> dict:
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected 'KEY: value' pairs, found a {type(content).__name__}.")
    return content


def _pick(known: Mapping[str, Any], key: str, what: str) -> Any:
    if key in known:
        return known[key]
    named = f"{what} {key} does not exist; the nearest is {nearest(key, known)}" if key else f"{what} is not named"
    raise ConfigError(f"{named}. There are {', '.join(known)}.")
