"""What scores mean: from a head's logits to what windows average, to probabilities, to labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES_PER_PASS = 8


@dataclass(frozen=True)
class ScoreRule:
    """How the logits of a head become scores, probabilities and labels. It belongs to the head.

    *Scores* are what windows average and what is resized: probabilities for ``sigmoid`` (CAT-Seg, GSNet: sigmoid
    first), logits for ``softmax`` (HG-RSOVSSeg and training-free heads: softmax last, at the final resolution).

    Attributes:
        activation: ``sigmoid`` (every class for itself), ``softmax`` (over all rows), or ``none`` where the head gives
            probabilities itself (SAM 3).
        scale: factor of the logits before the activation.
        synonyms: ``mean`` where logits have one row per class already; ``max`` where they have one per word: a class
            has the probability of its best word.
        threshold: pixels whose best probability is below it get ``below`` instead; 0 for none.
        below: the label of such pixels: a class index (a background class), or ``None`` for "other", one more than
            the last class.
    """

    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    scale: float = 1.0
    synonyms: Literal["mean", "max"] = "mean"
    threshold: float = 0.0
    below: int | None = None

    def below_is(self, label: int) -> ScoreRule:
        """Return this rule with another label for pixels below the threshold."""
        return replace(self, below=label)

    def scores(self, logits: Tensor) -> Tensor:
        """Return what windows average, in fp32, of logits of any shape."""
        logits = logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits.sigmoid() if self.activation == "sigmoid" else logits

    def probabilities(self, scores: Tensor, class_of: Tensor | None = None) -> Tensor:
        """Return [T, h, w] probabilities in 0..1 of [T or Q, h, w] scores at their final resolution.

        Args:
            scores: of one image.
            class_of: [Q] class of every row; read for ``synonyms`` ``max``.
        """
        rows = scores.softmax(dim=0) if self.activation == "softmax" else scores
        if self.synonyms == "mean" or class_of is None or len(class_of) == int(class_of[-1]) + 1:
            return rows
        index = class_of[:, None, None].expand_as(rows)
        best = rows.new_full((int(class_of[-1]) + 1, *rows.shape[1:]), -torch.inf)
        return best.scatter_reduce(0, index, rows, "amax")

    def label_map(
        self,
        scores: Tensor,
        size: tuple[int, int],
        class_of: Tensor | None = None,
        classes_per_pass: int = CLASSES_PER_PASS,
    ) -> tuple[Tensor, Tensor]:
        """Return the best class and its probability at every pixel of ``size``.

        The enlarged scores exist for a few rows at a time: 40 classes at 6000 x 6000 would take 5.8 GB. The result is
        the same as enlarging all and taking the maximum; of equal scores the first row wins.

        Args:
            scores: [T or Q, h, w].
            size: (height, width) of the result.
            class_of: [Q] class of every row; read for ``synonyms`` ``max``.
            classes_per_pass: rows that are enlarged together.

        Returns:
            Labels [H, W] (uint8, or int32 above 255 labels) and probabilities [H, W].
        """
        softmax = self.activation == "softmax"
        best = labels = total = None  # total: logarithm of the sum of exponentials, the softmax's denominator
        for start in range(0, len(scores), classes_per_pass):
            enlarged = enlarge(scores[start : start + classes_per_pass], size)
            if softmax:
                part = enlarged.logsumexp(dim=0)
                total = part if total is None else torch.logaddexp(total, part)
            value, index = enlarged.max(dim=0)
            if best is None:
                best, labels = value, index
            else:
                better = value > best
                best = torch.where(better, value, best)
                labels = torch.where(better, index + start, labels)
        if softmax:
            best = (best - total).exp()
        classes = len(scores)
        if self.synonyms == "max" and class_of is not None:
            labels, classes = class_of[labels], int(class_of[-1]) + 1
        if self.threshold > 0:
            labels = labels.masked_fill(best < self.threshold, classes if self.below is None else self.below)
        return labels.to(torch.uint8 if classes < 255 else torch.int32), best


def enlarge(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize [T, h, w] scores bilinearly to ``size``; returned as they are if they have it."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return F.interpolate(scores[None], size=tuple(size), mode="bilinear", align_corners=False)[0]
