"""Taking classes a few at a time, to bound memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Cost maps (images x classes) that one pass of the CAT-Seg family's memory-hungry parts takes at inference.
MAPS_PER_PASS = 40


def classes_per_pass(configured: int, images: int, classes: int, maps: int) -> int:
    """Return how many classes the memory-hungry parts of a head take at once.

    With gradients all: autograd keeps everything anyway. Otherwise as configured (``MODEL.SEM_SEG_HEAD.CLASS_CHUNK``),
    or, for 0, so that images times classes is about ``maps``.
    """
    if torch.is_grad_enabled():
        return classes
    return configured or max(maps // images, 1)


def over_classes(function: Callable[..., Tensor], chunk: int, *tensors: Tensor) -> Tensor:
    """Apply a function that treats each class alone to ``chunk`` classes at a time.

    Args:
        function: from tensors [B, t, ...] to [B, t, ...].
        chunk: t at most.
        tensors: [B, T, ...] each.
    """
    parts = [function(*part) for part in zip(*(tensor.split(chunk, dim=1) for tensor in tensors), strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
