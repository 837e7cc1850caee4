"""Scoring a model on a labelled data set, in one or several processes."""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ovrs.evaluation.confusion import ConfusionMatrix, EvaluationError, checked_miou_rule, sum_over_processes

logger = logging.getLogger(__name__)


class SegmentationEvaluator(DatasetEvaluator):
    """Scores label maps against ground truth; keeps pixel counts only, never a prediction.

    Follows Detectron2's evaluator contract, so it also works with ``inference_on_dataset``.

    Args:
        dataset_name: a registered data set; its metadata's ``stuff_classes`` names the classes.
        rule: see :meth:`ConfusionMatrix.metrics`.
        distributed: whether the processes share the data set. False: each process scores its own.

    Raises:
        EvaluationError: unknown rule, or class names that are missing or not unique.
    """

    def __init__(self, dataset_name: str, rule: str = "present", distributed: bool = True) -> None:
        self.dataset_name = dataset_name
        self._rule = checked_miou_rule(rule)
        self._distributed = distributed
        self._class_names = _class_names(dataset_name)
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        self._matrix = ConfusionMatrix(len(self._class_names))
        self._images = 0

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Count the pixels of one batch.

        Args:
            inputs: records with ``file_name`` and ``sem_seg``, integers [H, W] at the original size:
                class index, or 255 where the pixel is ignored.
            outputs: for each record, a dict with ``labels``: integers [H, W], class index.

        Raises:
            EvaluationError: a record without labels, an output of another size, a value out of range.
                The message names the image file.
        """
        for record, output in zip(inputs, outputs, strict=True):
            truth, prediction = _truth(record), output["labels"]
            if truth.shape != prediction.shape:
                raise EvaluationError(
                    f"{record['file_name']}: the labels are {_size(truth)} and the prediction is "
                    f"{_size(prediction)} (width x height). Predictions are scored at the size of the label file: "
                    "check that image and labels belong together."
                )
            try:
                self._matrix.update(truth, prediction)
            except EvaluationError as error:
                raise EvaluationError(f"{record['file_name']}: {error}") from error
            self._images += 1

    def images_seen(self) -> int:
        """Return the number of images since the last reset, of all processes together if ``distributed``."""
        return int(sum_over_processes(torch.tensor(self._images))) if self._distributed else self._images

    def evaluate(self) -> OrderedDict[str, OrderedDict[str, float]]:
        """Return ``{"sem_seg": figures}`` in percent, the same on every process.

        The figures are ``mIoU``, ``fwIoU``, ``mACC``, ``aACC``, then per class ``IoU-<class>``,
        ``ACC-<class>``, ``Precision-<class>``, ``F1-<class>``; NaN for a class that does not count.

        Raises:
            EvaluationError: the data set has no labelled pixel.
        """
        matrix = self._matrix.all_reduce() if self._distributed else self._matrix
        try:
            metrics = matrix.metrics(self._rule)
        except EvaluationError as error:
            raise EvaluationError(f"data set {self.dataset_name}: {error}") from error
        return OrderedDict(sem_seg=metrics.named(self._class_names))


def evaluate_dataset(model: nn.Module, loader: DataLoader, evaluator: SegmentationEvaluator) -> OrderedDict:
    """Run ``model`` over ``loader`` and return the figures, the same on every process.

    The model runs in evaluation mode without autograd; afterwards every submodule has its own mode back.
    All processes must call it together.

    Args:
        model: called with a list of records; returns one dict with ``labels`` for each.
        loader: yields lists of records; its batches over all processes cover ``loader.dataset`` once.
        evaluator: it is reset first.

    Returns:
        What :meth:`SegmentationEvaluator.evaluate` returns, and ``{"speed": {"images_per_second": float}}``:
        images of all processes by wall time, loading and scoring included.

    Raises:
        EvaluationError: the number of processed images is not that of the data set, or what
            :class:`SegmentationEvaluator` raises.
    """
    evaluator.reset()
    start = time.perf_counter()
    batches = tqdm(
        loader,
        desc=evaluator.dataset_name,
        unit="batch",
        disable=not comm.is_main_process(),
        mininterval=0.2 if sys.stderr.isatty() else 60,  # a log file gets a line a minute
    )
    with _evaluation_mode(model), torch.inference_mode():
        for inputs in batches:
            evaluator.process(inputs, model(inputs))

    seen, expected = evaluator.images_seen(), len(loader.dataset)
    if seen != expected:
        raise EvaluationError(
            f"data set {evaluator.dataset_name}: {seen} images were scored but it has {expected}. Each image must "
            "be scored exactly once: the loader needs a sampler that neither drops nor repeats, such as "
            "detectron2.data.samplers.InferenceSampler."
        )
    speed = seen / (time.perf_counter() - start)
    results = evaluator.evaluate()
    results["speed"] = OrderedDict(images_per_second=speed)
    logger.info(
        "%s: mIoU %.2f, %d images, %.2f images/s", evaluator.dataset_name, results["sem_seg"]["mIoU"], seen, speed
    )
    return results


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    # Mode by mode, because a training model may keep a frozen tower in evaluation mode.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _class_names(dataset_name: str) -> tuple[str, ...]:
    names = tuple(MetadataCatalog.get(dataset_name).get("stuff_classes", ()))
    if not names:
        raise EvaluationError(f"data set {dataset_name} names no classes: set 'stuff_classes' in its metadata.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise EvaluationError(
            f"data set {dataset_name}: class names used more than once: {repeated}. Rename them in 'stuff_classes'."
        )
    return names


def _truth(record: dict) -> Tensor:
    if "sem_seg" not in record:
        raise EvaluationError(
            f"{record['file_name']} has no labels, so it cannot be scored; use ovrs.Predictor to predict."
        )
    return record["sem_seg"]


def _size(labels: Tensor) -> str:
    return " x ".join(str(side) for side in reversed(labels.shape))
