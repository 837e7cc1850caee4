"""What a row of a table is here: its configuration, the weights behind it, and the data sets of its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.config import load_config
from ovrs.config.names import configs_folder
from ovrs.config.papers import MEAN, Column, Paper, Row, Table
from ovrs.data import DataError, resolve_datasets
from ovrs.engine.checkpoint import UNTRAINED, needs_checkpoint
from ovrs.evaluation import Result, ResultStore, describe_protocol
from ovrs.evaluation.store import differences, in_words
from ovrs.heads import head_class
from ovrs.vocabulary import Vocabulary
from ovrs.zoo import cached_path, entry_of, is_present
from ovrs.zoo.cache import known_sum
from ovrs.zoo.state_dict import sha256_of_file

FINAL_CHECKPOINT = "model_final.pth"
_NOT_OURS = "this model is not in this project; its figures are quoted from the paper"


@dataclass(frozen=True)
class Subject:
    """A row and everything that is needed to measure it.

    Attributes:
        paper, table, row: where it stands.
        overrides: changes of configuration keys, as on the command line, for every row.
    """

    paper: Paper
    table: Table
    row: Row
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The row's name as a configuration."""
        shipped = configs_folder() / "papers"
        paper = f"papers/{self.paper.key}" if self.paper.file.parent == shipped else self.paper.file
        return f"{paper}:{self.table.key}/{self.row.key}"

    @cached_property
    def config_name(self) -> str:
        """The configuration that measures the row; "" where this project has none."""
        if self.released and self.row.checkpoint_config:
            return self.row.checkpoint_config
        return self.name if self.row.config is not None else self.row.checkpoint_config

    @cached_property
    def cfg(self) -> CfgNode | None:
        """The configuration itself; ``None`` where this project has none."""
        return load_config(self.config_name, self.overrides) if self.config_name else None

    @property
    def released(self) -> bool:
        """Whether the released weights of the row lie in the cache folder."""
        return bool(self.row.checkpoint) and is_present(entry_of(self.row.checkpoint))

    @cached_property
    def weights(self) -> Path | None:
        """The released weights if they are here, else the last checkpoint of an own training of the row."""
        if self.released:
            return cached_path(entry_of(self.row.checkpoint))
        if self.cfg is None:
            return None
        own = Path(self.cfg.OUTPUT_DIR, FINAL_CHECKPOINT)
        return own if own.is_file() else None

    @cached_property
    def weights_sha256(self) -> str:
        """The sum of the weights behind the row, known even where the file is not here; "" if it is not."""
        if self.cfg is not None and not needs_checkpoint(self.cfg):
            return UNTRAINED
        if self.weights is not None:
            return sha256_of_file(self.weights)
        return known_sum(entry_of(self.row.checkpoint)) if self.row.checkpoint else ""

    def why_not(self) -> str:
        """Return why the row cannot be measured, with the remedy; "" if it can."""
        if self.cfg is None:
            return _NOT_OURS
        if self.weights is None and needs_checkpoint(self.cfg):
            if self.row.checkpoint:
                return f"checkpoint {self.row.checkpoint} is absent: ovrs models fetch {self.row.checkpoint}"
            own = Path(self.cfg.OUTPUT_DIR, FINAL_CHECKPOINT)
            return f"no weights are released and {own} is absent: ovrs train {self.name}"
        for artefact in head_class(self.cfg).artefacts(self.cfg):
            if not artefact.exists:
                return f"{artefact.path or artefact.key} is absent: {artefact.command}"
        return ""

    def columns_of_mean(self, column: Column) -> tuple[Column, ...] | None:
        """Return what the printed mean of a column averages, as columns; ``None`` where nobody says it."""
        by_key = {each.key: each for each in self.table.columns}
        if cells := self.table.cells_of_mean(self.row, column.key):
            return tuple(by_key[cell] for cell in cells)
        if not self.table.mean_over:
            return None
        return tuple(
            Column(f"{name}/{column.metric}", name, column.metric, column.unit, self.registered(name))
            for name in self.table.mean_over
        )

    def registered(self, dataset: str) -> str:
        """Return the registered name of a data set of the paper, "" where this project has none."""
        return self.paper.datasets.get(dataset, {}).get("ovrs", "")

    def datasets(self) -> Iterator[str]:
        """Yield the registered names that the row's cells and means need, each once."""
        seen: set[str] = set()
        for column in self.table.columns:
            cells = (self.columns_of_mean(column) or ()) if column.dataset == MEAN else (column,)
            for name in (cell.registered for cell in cells):
                if name and name not in seen:
                    seen.add(name)
                    yield name

    def expected_protocol(self, dataset: str) -> dict:
        """Return the protocol that the row is measured under on a data set.

        Raises:
            DataError: the data set is not here.
        """
        resolve_datasets([dataset], self.cfg.DATASETS.ROOT)
        vocabulary = Vocabulary.from_strings(
            MetadataCatalog.get(dataset).class_strings, Vocabulary.templates_of(self.cfg)
        )
        return describe_protocol(self.cfg, dataset, vocabulary, self.weights_sha256 or None)

    def measurement(self, dataset: str, store: ResultStore) -> tuple[Result | None, list[str]]:
        """Return the stored result of the row on a data set, and how its protocol differs from the row's, in words.

        An exact record comes first; else the one of the same weights with the fewest differences.
        """
        if not self.weights_sha256:
            return None, []
        try:
            expected = self.expected_protocol(dataset)
        except DataError:
            expected = None
        if expected is not None and (exact := store.get(expected)):
            return exact, []
        found = [
            result for result in store.results(dataset) if result.protocol["weights"]["sha256"] == self.weights_sha256
        ]
        if not found:
            return None, []
        if expected is None:
            return found[0], [
                f"the data set is not here any more, so its record of {found[0].protocol['date'][:10]} is unchecked"
            ]
        best = min(found, key=lambda result: len(differences(result.protocol, expected)))
        return best, [
            f"measured under another protocol: {words}" for words in in_words(differences(best.protocol, expected))
        ]

    def absence(self, dataset: str) -> str:
        """Return why a data set cannot be read, with the remedy; "" if it can."""
        try:
            resolve_datasets([dataset], self.cfg.DATASETS.ROOT)
            DatasetCatalog.get(dataset)
        except DataError as error:
            return f"data set {dataset} is absent (datasets/README.md says how to get it): {str(error).splitlines()[0]}"
        return ""
