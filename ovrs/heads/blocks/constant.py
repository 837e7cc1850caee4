"""Tensors that depend on shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

_REMEMBERED = 32


def constant(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate a function from plain values to a tensor: it is made once, and is a constant to ``torch.compile``.

    Training may read what an evaluation made.
    """
    made = lru_cache(maxsize=_REMEMBERED)(torch.inference_mode(False)(make))

    @torch.compiler.assume_constant_result
    def remembered(*arguments: object) -> Tensor:
        return made(*arguments)

    remembered.__doc__ = make.__doc__
    return remembered
