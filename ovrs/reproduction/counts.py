"""Cells that need no evaluation: parameters, arithmetic, and how alike two lists of class names are."""

from __future__ import annotations

from functools import lru_cache

from ovrs.config import load_config
from ovrs.config.papers import Column
from ovrs.data import resolve_datasets
from ovrs.measure.analysis import Analysis, analyze
from ovrs.measure.label_sets import compare_label_sets
from ovrs.reproduction.subject import Subject
from ovrs.zoo import find, is_present

# Per column: what is counted, and how much one unit of the paper's column is.
COUNTS: dict[str, tuple[str, float]] = {
    "params_M": ("parameters", 1e6),
    "params_G": ("parameters", 1e9),
    "trainable_M": ("trained", 1e6),
    "flops_G": ("macs", 1e9),
    "flops_T": ("macs", 1e12),
}
_FEW_CLASSES = 2  # parameters do not depend on their number


def count(subject: Subject, column: Column) -> tuple[float | None, tuple[str, ...], str]:
    """Return the counted value of a cell in the column's unit, remarks, and why it cannot be counted."""
    what, unit = COUNTS[column.metric]
    conditions = subject.table.counting
    if what == "macs" and "classes" not in conditions:
        return None, (), "the paper does not say under which conditions it counted"
    analysis = _analysis(
        subject.config_name,
        (*subject.overrides, *map(str, conditions.get("config", ()))),
        conditions.get("classes", _FEW_CLASSES),
        tuple(conditions.get("size", (640, 640))),
    )
    whole = analysis.parameters["model"]
    if what == "macs":
        value = analysis.original_macs(text=conditions.get("text", False), norms=conditions.get("norms", False))
    else:
        value = whole.total if what == "parameters" else whole.trained
    return value / unit, tuple(filter(None, [conditions.get("note")])), ""


@lru_cache(maxsize=32)
def _analysis(config: str, overrides: tuple[str, ...], classes: int, size: tuple[int, int]) -> Analysis:
    """Count once per configuration: several columns ask."""
    return analyze(load_config(config, overrides), classes, size)


def similarity(subject: Subject) -> tuple[float | None, str]:
    """Return the similarity of a row's class names to those of the table's training set, or why there is none."""
    conditions, paper = subject.table.counting, subject.paper
    dataset = subject.registered(subject.row.label)
    training = paper.training_sets.get(conditions.get("against", ""), {}).get("ovrs", "")
    if not (dataset and training):
        return None, "the class lists behind this figure are not among this project's data sets"
    cfg = load_config(conditions["config"], subject.overrides)
    tower = find(cfg.MODEL.VLM.WEIGHTS)
    if tower is not None and not is_present(tower):
        return None, f"text tower {tower.name} is absent: ovrs models fetch {tower.name}"
    dataset, training = resolve_datasets([dataset, training], cfg.DATASETS.ROOT)
    return compare_label_sets(cfg, [dataset], training)[dataset].similarity, ""
