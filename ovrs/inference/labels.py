"""Reducing class scores to a label map without holding them at full resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def enlarge(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize [T, h, w] scores bilinearly to ``size``; returned as they are if they have it."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return F.interpolate(scores[None], size=tuple(size), mode="bilinear", align_corners=False)[0]


def label_map(
    scores: Tensor, size: tuple[int, int], classes_per_pass: int = 8, softmax: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the best class and its score at every pixel of ``size``.

    The enlarged scores exist for a few classes at a time: 40 classes at 6000 x 6000 would take 5.8 GB. The
    result is the same as enlarging all and taking the maximum; of equal scores the first class wins.

    Args:
        scores: [T, h, w].
        size: (height, width) of the result.
        classes_per_pass: classes that are enlarged together.
        softmax: whether ``scores`` are logits, which are enlarged before the softmax over all classes.

    Returns:
        Labels [H, W] (uint8, or int32 above 255 classes) and scores [H, W].
    """
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
    return labels.to(torch.uint8 if len(scores) <= 255 else torch.int32), best
