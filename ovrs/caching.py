"""Results that depend on parameters and not on the image, computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class ParameterCache(Generic[T]):
    """Remembers what was computed from parameters until these change.

    While they train (gradients on and one of them wants one) nothing is remembered, so gradients reach them, and
    what was remembered before is forgotten.

    Args:
        capacity: number of results; the least recently used is dropped.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._results: OrderedDict[Hashable, tuple[tuple, T]] = OrderedDict()

    def __call__(self, key: Hashable, parameters: Iterable[nn.Parameter], compute: Callable[[], T]) -> T:
        """Return ``compute()``, or what it returned for this ``key`` and the same values of ``parameters``.

        Args:
            key: everything else that the result depends on.
            parameters: of one module, always the same.
            compute: its result holds no inference tensors and no graph if it is remembered, so that training may read
                what an evaluation computed.
        """
        parameters = list(parameters)
        if being_trained(parameters):
            self._results.clear()  # fused optimizers change weights without raising their version
            return compute()
        state = parameter_state(parameters)
        found = self._results.get(key)
        if found is None or found[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                found = (state, compute())
            self._results[key] = found
            if len(self._results) > self._capacity:
                self._results.popitem(last=False)
        self._results.move_to_end(key)
        return found[1]


def parameter_state(parameters: Iterable[Tensor]) -> tuple:
    """Return what changes when parameters do.

    In-place updates (optimizer steps, loading a checkpoint) raise a tensor's version; moving or replacing it changes
    its address.
    """
    return tuple((p.data_ptr(), _version(p), p.dtype, p.device) for p in parameters)


def _version(parameter: Tensor) -> int:
    """Return how often a parameter was changed in place; what is made in inference mode does not count."""
    return 0 if parameter.is_inference() else parameter._version


def being_trained(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether gradients are on and one of the parameters wants one."""
    return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in parameters)
