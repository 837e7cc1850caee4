"""Measuring the cells of a table that can be measured here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ovrs.engine import build_model, evaluate, load_configured
from ovrs.evaluation import ResultStore
from ovrs.reproduction.subject import Subject
from ovrs.reproduction.table import subjects_of

logger = logging.getLogger(__name__)


def run_table(
    paper: str, table: str, row: str = "", store: ResultStore | None = None, overrides: Sequence[str] = ()
) -> int:
    """Evaluate every row whose weights are here on every data set that is here, unless its record exists.

    Records are written set by set, so a run that was interrupted goes on where it stopped.

    Args:
        paper: name or file of a paper.
        table: its key.
        row: one row alone; "" for all.
        store: where records are looked up; evaluations write to the default one.
        overrides: changes of configuration keys for all rows.

    Returns:
        How many data sets were evaluated.
    """
    store = store or ResultStore()
    return sum(_run(subject, store) for subject in subjects_of(paper, table, row, overrides))


def _run(subject: Subject, store: ResultStore) -> int:
    datasets = list(subject.datasets())
    if not datasets:
        return 0
    if reason := subject.why_not():
        logger.info("%s: %s", subject.name, reason)
        return 0
    open_sets = []
    for dataset in datasets:
        if reason := subject.absence(dataset):
            logger.info("%s: %s", subject.name, reason)
        elif store.get(subject.expected_protocol(dataset)):
            logger.info("%s: %s is measured already", subject.name, dataset)
        else:
            open_sets.append(dataset)
    if not open_sets:
        return 0
    cfg = subject.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(subject.weights or "")
    cfg.DATASETS.TEST = tuple(open_sets)
    cfg.freeze()
    logger.info("%s: %s on %s", subject.name, subject.weights or "no checkpoint", ", ".join(open_sets))
    model = build_model(cfg)
    folder = Path("output", "reproduced", subject.paper.key, subject.table.key, subject.row.key)
    evaluate(cfg, model, folder, load_configured(model, cfg))
    return len(open_sets)
