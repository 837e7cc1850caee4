"""Counting pixels per (truth, prediction) pair, and the figures that follow from the counts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

from ovrs.errors import EvaluationError
from ovrs.structures import IGNORE_LABEL

MIOU_RULES = ("present", "union")
FIGURES = ("mIoU", "fwIoU", "mACC", "aACC")
CLASS_FIGURES = ("IoU", "ACC", "Precision", "F1")

_PIXELS = 1 << 20  # counted at a time


def checked_miou_rule(rule: str) -> str:
    """Return ``rule``, or raise EvaluationError if it is not one of ``MIOU_RULES``."""
    if rule not in MIOU_RULES:
        raise EvaluationError(f"TEST.MIOU_RULE must be one of {', '.join(MIOU_RULES)}, got {rule!r}.")
    return rule


def sum_over_processes(counts: Tensor) -> Tensor:
    """Return the elementwise sum of an integer tensor over all processes, exact and the same on each.

    All processes must call it together, with tensors of one shape. The argument stays as it is.
    """
    total = counts.clone()
    if comm.get_world_size() > 1:
        # NCCL reduces tensors of the GPU only, Gloo is at home on the CPU.
        total = total.to("cuda" if dist.get_backend() == dist.Backend.NCCL else "cpu")
        dist.all_reduce(total)
    return total


@dataclass(frozen=True)
class SegmentationMetrics:
    """The figures of one data set, all in percent, float64.

    Attributes:
        iou: [N] intersection over union; NaN where a class does not count under the rule.
        accuracy: [N] recall; NaN where a class has no ground truth.
        precision: [N] NaN where a class does not count or is never predicted.
        f1: [N] harmonic mean of precision and recall; NaN where a class does not count.
        miou: mean of ``iou`` over the classes that count.
        fwiou: mean of ``iou`` weighted by the classes' shares of the ground truth.
        macc: mean of ``accuracy`` over the classes with ground truth.
        aacc: share of labelled pixels that are right.
    """

    iou: np.ndarray
    accuracy: np.ndarray
    precision: np.ndarray
    f1: np.ndarray
    miou: float
    fwiou: float
    macc: float
    aacc: float

    def named(self, class_names: Sequence[str]) -> OrderedDict[str, float]:
        """Return a flat dict with Detectron2's naming: ``mIoU``, ..., and ``IoU-road``, ... per class."""
        named = OrderedDict(zip(FIGURES, (self.miou, self.fwiou, self.macc, self.aacc), strict=True))
        per_class = (self.iou, self.accuracy, self.precision, self.f1)
        for figure, values in zip(CLASS_FIGURES, per_class, strict=True):
            for name, value in zip(class_names, values.tolist(), strict=True):
                named[f"{figure}-{name}"] = value
        return named


def by_class(named: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return {class: {figure: value}} of what :meth:`SegmentationMetrics.named` returns."""
    classes: dict[str, dict[str, float]] = {}
    for key, value in named.items():
        figure, dash, class_name = key.partition("-")
        if dash and figure in CLASS_FIGURES:
            classes.setdefault(class_name, {})[figure] = value
    return classes


class ConfusionMatrix:
    """Pixel counts per pair of true and predicted class, exact in int64.

    The counts live on the device of the latest predictions, so an update moves no map to the CPU.

    Args:
        num_classes: N, at most 255 because label 255 means "ignored".

    Attributes:
        counts: [N, N] int64; rows are the truth, columns the prediction.

    Examples:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update(truth=torch.tensor([0, 0, 1, 255]), prediction=torch.tensor([0, 1, 1, 1]))
        >>> matrix.counts.tolist()
        [[1, 1], [0, 1]]
        >>> matrix.metrics().miou
        50.0
    """

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes <= IGNORE_LABEL:
            raise EvaluationError(
                f"the number of classes must be in 1..{IGNORE_LABEL}, got {num_classes}; "
                f"label {IGNORE_LABEL} is kept for ignored pixels."
            )
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, truth: Tensor, prediction: Tensor) -> None:
        """Count the pixels of one or many images.

        Args:
            truth: integers of any shape, 0..N-1, or 255 where the pixel is ignored.
            prediction: integers of the same shape, 0..N-1, at ignored pixels too.

        Raises:
            EvaluationError: shapes differ, a tensor is not of an integer type, or a value is out of range.
        """
        if truth.shape != prediction.shape:
            raise EvaluationError(
                f"ground truth has shape {tuple(truth.shape)}, prediction {tuple(prediction.shape)}; they must agree."
            )
        truth, prediction = _as_indices(truth, "ground truth"), _as_indices(prediction, "prediction")
        if not truth.numel():
            return
        self._check_range(prediction, "prediction", self.num_classes)
        what = f"ground truth (besides {IGNORE_LABEL}, ignored)"
        self._check_range(truth, what, IGNORE_LABEL + 1)
        # As bytes, the labels of a large map cross to the GPU in an eighth of the time.
        added = _count_pairs(truth.to(torch.uint8).to(prediction.device), prediction, self.num_classes)
        if added[self.num_classes : IGNORE_LABEL].any():
            self._check_range(truth[truth != IGNORE_LABEL], what, self.num_classes)
        self.counts = self.counts.to(added.device) + added[: self.num_classes]

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of ``other``, which must be of the same classes."""
        if other.num_classes != self.num_classes:
            raise EvaluationError(
                f"confusion matrices of {self.num_classes} and {other.num_classes} classes cannot be merged."
            )
        self.counts = self.counts + other.counts.to(self.counts.device)

    def all_reduce(self) -> ConfusionMatrix:
        """Return the sum over all processes, the same on each; this matrix stays as it is.

        All processes must call it together.
        """
        total = ConfusionMatrix(self.num_classes)
        total.counts = sum_over_processes(self.counts)
        return total

    def metrics(self, rule: str = "present") -> SegmentationMetrics:
        """Return the figures of everything counted so far.

        Args:
            rule: which classes the mean IoU is over. ``present``: those with ground truth in the set
                (Detectron2, GSNet, RSKT-Seg). ``union``: also those that are predicted without ever being
                labelled, with an IoU of 0 (HG-RSOVSSeg).

        Raises:
            EvaluationError: unknown rule, or no labelled pixel at all.
        """
        checked_miou_rule(rule)
        counts = self.counts.cpu().numpy()
        hits, truth, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        present = truth > 0
        if not present.any():
            raise EvaluationError(
                f"nothing to score: no pixel carries a label, all are {IGNORE_LABEL} (ignored) or there were no "
                "images. Check the label files and the ignored ids of the data set's card."
            )
        counted = present if rule == "present" else present | (predicted > 0)

        iou = _percent(hits, truth + predicted - hits, where=counted)
        accuracy = _percent(hits, truth, where=present)
        return SegmentationMetrics(
            iou=iou,
            accuracy=accuracy,
            precision=_percent(hits, predicted, where=counted & (predicted > 0)),
            f1=_percent(2 * hits, truth + predicted, where=counted),
            miou=float(iou[counted].mean()),
            fwiou=float(np.average(iou[present], weights=truth[present])),
            macc=float(accuracy[present].mean()),
            aacc=float(100.0 * hits.sum() / truth.sum()),
        )

    def _check_range(self, indices: Tensor, what: str, end: int) -> None:
        low, high = torch.stack(indices.aminmax()).tolist()
        if low < 0 or high >= end:
            indices = indices[indices != IGNORE_LABEL] if end > IGNORE_LABEL else indices
            outside = indices[(indices < 0) | (indices >= self.num_classes)]
            values, pixels = outside.unique(return_counts=True)
            listed = ", ".join(f"{v} ({n} pixels)" for v, n in zip(values.tolist(), pixels.tolist(), strict=True))
            raise EvaluationError(
                f"{what} contains {listed}; with {self.num_classes} classes the valid labels are "
                f"0..{self.num_classes - 1}. The class list of the data set and its labels must belong together."
            )


def _as_indices(labels: Tensor, what: str) -> Tensor:
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise EvaluationError(f"{what} must hold integer class indices, got {labels.dtype}.")
    return labels.flatten()


def _count_pairs(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Return [256, classes] int64 counts of (truth, prediction) pairs of uint8 truth and predictions below ``classes``.

    A few megabytes at a time, which stay in the caches; NumPy's counting is ten times as fast as PyTorch's on a CPU.
    """
    rows = IGNORE_LABEL + 1
    counts = torch.zeros(rows * classes, dtype=torch.int64, device=prediction.device)
    for true, predicted in zip(truth.split(_PIXELS), prediction.split(_PIXELS), strict=True):
        if prediction.is_cuda:
            counts += torch.bincount(true.int() * classes + predicted, minlength=len(counts))
        else:
            pairs = true.numpy().astype(np.intp) * classes + predicted.numpy()
            counts += torch.from_numpy(np.bincount(pairs, minlength=len(counts)))
    return counts.view(rows, classes)


def _percent(part: np.ndarray, whole: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.divide(100.0 * part, whole, out=np.full(part.shape, np.nan), where=where)
