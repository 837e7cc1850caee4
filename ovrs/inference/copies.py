"""Copies of weights in a short type, so that autocast does not round them anew in every pass."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ovrs.backbones.attention import SplitAttention
from ovrs.caching import parameter_state

# Modules whose parameters autocast rounds and nothing else reads.
_ROUNDED = (nn.Linear, nn.modules.conv._ConvNd, SplitAttention)
_swapping = threading.Lock()


class ShortWeights:
    """Lets a module compute with copies of its matrices, for passes without gradients.

    The copies hold what autocast would make of the weights, so results stay the same, bit for bit. Norms, embeddings
    and scales, which autocast leaves alone, stay as they are. Below modules with an attribute ``exact_weights`` that
    is true nothing is copied: they read weights in full precision. Copies are made anew when weights changed.

    Args:
        module: whose weights are copied.
        parameters: those of them that its passes read.
        dtype: that of the autocast around its passes.
    """

    def __init__(self, module: nn.Module, parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
        read = {id(parameter) for parameter in parameters}
        self._places = [(owner, name) for owner, name in _rounded(module) if id(owner._parameters[name]) in read]
        self._dtype = dtype
        self._state: tuple | None = None
        self._copies: list[nn.Parameter] = []
        self._originals: list[nn.Parameter] = []
        self._users = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Compute with the copies inside the block; several threads may be in it at once."""
        with _swapping:
            if not self._users:
                self._refresh()
                self._put(self._copies)
            self._users += 1
        try:
            yield
        finally:
            with _swapping:
                self._users -= 1
                if not self._users:
                    self._put(self._originals)

    def forget(self) -> None:
        """Drop the copies: the weights may change unseen (fused optimizers do not raise a tensor's version)."""
        self._state, self._copies = None, []

    def _refresh(self) -> None:
        self._originals = [owner._parameters[name] for owner, name in self._places]
        state = parameter_state(self._originals)
        if state != self._state:
            with torch.inference_mode(False), torch.no_grad():
                self._copies = [
                    nn.Parameter(original.to(self._dtype), requires_grad=False) for original in self._originals
                ]
            self._state = state

    def _put(self, parameters: Iterable[nn.Parameter]) -> None:
        for (owner, name), parameter in zip(self._places, parameters, strict=True):
            owner._parameters[name] = parameter


def _rounded(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    if getattr(module, "exact_weights", False):
        return
    if isinstance(module, _ROUNDED):
        yield from ((module, name) for name, value in module._parameters.items() if value is not None)
    for child in module.children():
        yield from _rounded(child)
