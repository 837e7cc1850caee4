"""Evaluating a model on every set of ``DATASETS.TEST``, each with its own vocabulary."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from torch import nn

from ovrs.config import ConfigError
from ovrs.data import DataError, Record, build_test_loader, resolve_datasets
from ovrs.data.reading import read_size
from ovrs.errors import choose
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

AVERAGES = ("all", "unseen")
_READERS = 8


def check_test_sets(cfg: CfgNode) -> None:
    """Check what can be checked of ``DATASETS.TEST`` and ``DATASETS.VAL`` before the first image, not hours later.

    Raises:
        ConfigError: a set that is listed twice, or an unknown ``TEST.AVERAGE``.
        DataError: a set that cannot be found or paired, or has no labels; a file without a readable header, or an image
            and its labels of different sizes.
        EvaluationError: unknown ``TEST.MIOU_RULE``.
    """
    choose("TEST.AVERAGE", cfg.TEST.AVERAGE, AVERAGES)
    names: dict[str, None] = {}
    for key in ("TEST", "VAL"):
        listed = resolve_datasets(cfg.DATASETS[key], cfg.DATASETS.ROOT)
        if repeated := sorted({name for name in listed if listed.count(name) > 1}):
            raise ConfigError(f"DATASETS.{key} lists {', '.join(repeated)} more than once; list each set once.")
        names |= dict.fromkeys(listed)
    for name in names:
        build_test_loader(cfg, name)
        SegmentationEvaluator(name, cfg.TEST.MIOU_RULE)
        if not MetadataCatalog.get(name).sem_seg_root:
            raise DataError(f"data set {name} has no labels; DATASETS.TEST and DATASETS.VAL need splits with labels.")
        if comm.is_main_process():
            _check_headers(name, DatasetCatalog.get(name))


def _check_headers(name: str, records: Sequence[Record]) -> None:
    """Read the sizes of all images and labels, several files at a time: on a network disk most of it is waiting."""

    def sizes(record: Record) -> tuple[tuple[int, int], tuple[int, int]]:
        return read_size(record["file_name"]), read_size(record["sem_seg_file_name"])

    with ThreadPoolExecutor(_READERS) as pool:
        for record, (image, labels) in zip(records, pool.map(sizes, records), strict=True):
            if image != labels:
                raise DataError(
                    f"data set {name}: {record['file_name']} is {image[1]} x {image[0]} and its labels "
                    f"{record['sem_seg_file_name']} are {labels[1]} x {labels[0]} (width x height); they must "
                    "have one size."
                )


def evaluate(
    cfg: CfgNode, model: OpenVocabSegmenter | nn.Module, folder: str | Path, weights_sha256: str | None
) -> Report:
    """Score ``model`` and write ``report.json`` and ``report.md`` into ``folder``, anew after every set.

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
    trained = training_classes(cfg.DATASETS.TRAIN, cfg.DATASETS.ROOT)
    report = Report(left_out_of_average=_left_out_of_average(cfg, names), training_classes=trained)
    for name in names:
        evaluator = SegmentationEvaluator(name, cfg.TEST.MIOU_RULE)
        vocabulary = model.vocabulary(MetadataCatalog.get(name).class_strings)
        results = evaluate_dataset(model, build_test_loader(cfg, name), evaluator)
        protocol = describe_protocol(cfg, name, vocabulary, weights_sha256)
        report.add(name, results["sem_seg"], protocol)
        if comm.is_main_process():
            report.write(folder)
            if weights_sha256:
                ResultStore().add(Result.of(results, protocol))
    if comm.is_main_process():
        logger.info("Results (%s):\n%s", Path(folder, "report.md"), report.table())
    return report


def _left_out_of_average(cfg: CfgNode, names: Sequence[str]) -> list[str]:
    """Return the test sets that are listed but do not count in the average."""
    if choose("TEST.AVERAGE", cfg.TEST.AVERAGE, AVERAGES) == "all":
        return []
    trained = resolve_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.ROOT)
    cards = {MetadataCatalog.get(name).card.path for name in trained}
    return [name for name in names if MetadataCatalog.get(name).card.path in cards]


def training_classes(names: Sequence[str], root: str) -> list[str] | None:
    """Return the class strings of all training sets; ``None`` if a set is not known here, or there is none.

    Args:
        names: DATASETS.TRAIN.
        root: DATASETS.ROOT.
    """
    try:
        trained = resolve_datasets(names, root)
    except DataError as error:
        logger.warning("Classes are not marked as seen or unseen: %s", error)
        return None
    return [text for name in trained for text in MetadataCatalog.get(name).class_strings] or None
