"""Arithmetic that must not be rounded to half precision, and the memory order in which short types are fast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(like: Tensor) -> AbstractContextManager:
    """Switch autocast off on the device of a tensor; it knows no device of tensors that have a shape only."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


def channels_last(maps: Tensor) -> Tensor:
    """Return [N, C, h, w] maps with the channels innermost in memory, on a GPU; elsewhere as they are.

    For large kernels over many channels: without it cuDNN convolves bf16 without matrix units. A CPU's kernels
    reorder by themselves.
    """
    return maps.contiguous(memory_format=torch.channels_last) if maps.is_cuda else maps
