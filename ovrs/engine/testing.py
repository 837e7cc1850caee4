"""Evaluating a model on every set of ``DATASETS.TEST``, each with its own vocabulary."""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from torch import nn

from ovrs.config import ConfigError
from ovrs.data import build_test_loader, resolve_datasets
from ovrs.evaluation import Report, SegmentationEvaluator, describe_protocol, evaluate_dataset
from ovrs.segmenter import OpenVocabSegmenter

logger = logging.getLogger(__name__)


def evaluate(
    cfg: CfgNode, model: OpenVocabSegmenter | nn.Module, folder: str | Path, weights_sha256: str | None
) -> Report:
    """Score ``model`` and write ``report.json`` and ``report.md`` into ``folder``.

    All processes call it together; the main one writes.

    Args:
        cfg: reads DATASETS.TEST, TEST, INPUT and what the protocol records.
        model: the segmenter, not wrapped.
        folder: where the report goes.
        weights_sha256: of the file the model was loaded from; ``None`` while it is being trained.

    Raises:
        ConfigError: no test set.
    """
    if not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST is empty; name at least one data set, or the path of a data card.")
    report = Report()
    for name in resolve_datasets(cfg.DATASETS.TEST, cfg.DATASETS.ROOT):
        evaluator = SegmentationEvaluator(name, cfg.TEST.MIOU_RULE)
        vocabulary = model.vocabulary(MetadataCatalog.get(name).class_strings)
        results = evaluate_dataset(model, build_test_loader(cfg, name), evaluator)
        report.add(name, results["sem_seg"], describe_protocol(cfg, name, vocabulary, weights_sha256))
    if comm.is_main_process():
        report.write(folder)
        logger.info("Results (%s):\n%s", Path(folder, "report.md"), report.table())
    return report
