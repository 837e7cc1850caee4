"""Arithmetic that must not be rounded to half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager:
    """Switch autocast off on the device of a tensor; it knows no device of tensors that have a shape only."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)
