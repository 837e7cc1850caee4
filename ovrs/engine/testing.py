"""Evaluating a model on every set of ``DATASETS.TEST``, each with its own vocabulary."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from torch import nn

from ovrs.config import ConfigError
from ovrs.data import DataError, build_test_loader, resolve_datasets
from ovrs.evaluation import (
    Report,
    Result,
    ResultStore,
    SegmentationEvaluator,
    describe_protocol,
    evaluate_dataset,
)
from ovrs.segmenter import OpenVocabSegmenter

logger = logging.getLogger(__name__)


def check_test_sets(cfg: CfgNode) -> None:
    """Find the files of every set of ``DATASETS.TEST`` and ``DATASETS.VAL`` before training, not hours later.

    Raises:
        DataError: a set that cannot be found or paired, or has no labels.
        EvaluationError: unknown ``TEST.MIOU_RULE``.
    """
    for name in resolve_datasets([*cfg.DATASETS.TEST, *cfg.DATASETS.VAL], cfg.DATASETS.ROOT):
        build_test_loader(cfg, name)
        SegmentationEvaluator(name, cfg.TEST.MIOU_RULE)
        if not MetadataCatalog.get(name).sem_seg_root:
            raise DataError(f"data set {name} has no labels; DATASETS.TEST and DATASETS.VAL need splits with labels.")


def evaluate(
    cfg: CfgNode, model: OpenVocabSegmenter | nn.Module, folder: str | Path, weights_sha256: str | None
) -> Report:
    """Score ``model`` and write ``report.json`` and ``report.md`` into ``folder``.

    Every finished data set of weights that come from a file goes into the store of results at once
    (:class:`ovrs.evaluation.ResultStore`). All processes call it together; the main one writes.

    Args:
        cfg: reads DATASETS.TEST, TEST, INPUT and what the protocol records.
        model: the segmenter, not wrapped.
        folder: where the report goes.
        weights_sha256: of the file the model was loaded from; ``None`` while it is being trained.

    Raises:
        ConfigError: no test set, or an unknown ``TEST.AVERAGE``.
    """
    if not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST is empty; name at least one data set, or the path of a data card.")
    names = resolve_datasets(cfg.DATASETS.TEST, cfg.DATASETS.ROOT)
    report = Report(left_out_of_average=_left_out_of_average(cfg, names), training_classes=_training_classes(cfg))
    for name in names:
        evaluator = SegmentationEvaluator(name, cfg.TEST.MIOU_RULE)
        vocabulary = model.vocabulary(MetadataCatalog.get(name).class_strings)
        results = evaluate_dataset(model, build_test_loader(cfg, name), evaluator)
        protocol = describe_protocol(cfg, name, vocabulary, weights_sha256)
        report.add(name, results["sem_seg"], protocol)
        if weights_sha256 and comm.is_main_process():
            ResultStore().add(Result.of(results, protocol))
    if comm.is_main_process():
        report.write(folder)
        logger.info("Results (%s):\n%s", Path(folder, "report.md"), report.table())
    return report


def _left_out_of_average(cfg: CfgNode, names: Sequence[str]) -> list[str]:
    """Return the test sets that are listed but do not count in the average."""
    if cfg.TEST.AVERAGE not in ("all", "unseen"):
        raise ConfigError(f"TEST.AVERAGE must be 'all' or 'unseen', got {cfg.TEST.AVERAGE!r}.")
    if cfg.TEST.AVERAGE == "all":
        return []
    trained = resolve_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.ROOT)
    cards = {MetadataCatalog.get(name).card.path for name in trained}
    return [name for name in names if MetadataCatalog.get(name).card.path in cards]


def _training_classes(cfg: CfgNode) -> list[str] | None:
    """Return the class strings of all training sets; ``None`` if a set is not known here, or there is none."""
    try:
        trained = resolve_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.ROOT)
    except DataError as error:
        logger.warning("Classes are not marked as seen or unseen: %s", error)
        return None
    return [text for name in trained for text in MetadataCatalog.get(name).class_strings] or None
