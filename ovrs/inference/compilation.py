"""Towers and heads that run compiled, or as recorded GPU work, at inference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ovrs.structures import TowerFeatures

COMPILE = ("none", "towers", "all")
_RECORDINGS = 8  # each keeps its inputs, its results and its working memory on the GPU

Result = TypeVar("Result")
Features = dict[str, TowerFeatures]


def compile_for_inference(modules: Iterable[nn.Module], **options: Any) -> None:
    """Let passes of modules without gradients run compiled; names of parameters and hooks stay as they are.

    The first pass of every shape compiles, which takes minutes for a head and seconds for the blocks of a tower: equal
    blocks share what was compiled.

    Args:
        modules: the modules.
        options: of ``torch.compile``.
    """
    for module in modules:
        module.forward = _by_gradient(module.forward, torch.compile(module.forward, dynamic=False, **options))


def _by_gradient(plain: Callable, compiled: Callable) -> Callable:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return (plain if torch.is_grad_enabled() else compiled)(*args, **kwargs)

    return forward


class CudaGraphs(Generic[Result]):
    """Records the GPU work of a function at its first call and replays it afterwards: the same kernels, one launch.

    Args:
        copied: copies a result; the recorded one is overwritten by the next replay.
    """

    def __init__(self, copied: Callable[[Result], Result]) -> None:
        self._copied = copied
        self._recordings: OrderedDict[Hashable, tuple[list[Tensor], torch.cuda.CUDAGraph, Result, Any]] = OrderedDict()

    def __call__(
        self, key: Hashable, inputs: Sequence[Tensor], run: Callable[[list[Tensor]], Result], keep: Any = None
    ) -> Result:
        """Return ``run(inputs)``.

        Args:
            key: everything besides the shapes of the inputs that decides what is computed, states of weights included.
            inputs: what differs from call to call.
            run: works on the GPU alone and reads nothing back.
            keep: other tensors that it reads, to be kept alive.
        """
        key = (key, tuple((tensor.shape, tensor.dtype) for tensor in inputs))
        if key not in self._recordings:
            self._recordings[key] = (*self._record(inputs, run), keep)
            if len(self._recordings) > _RECORDINGS:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        places, graph, result, _ = self._recordings[key]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return self._copied(result)

    @staticmethod
    def _record(
        inputs: Sequence[Tensor], run: Callable[[list[Tensor]], Result]
    ) -> tuple[list[Tensor], torch.cuda.CUDAGraph, Result]:
        places = [tensor.clone() for tensor in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # fills caches and lets cuDNN choose its kernels before anything is recorded
            for _ in range(2):
                run(places)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run(places)
        return places, graph, result


def tensors_of(features: Features) -> list[Tensor]:
    """Return every tensor of the towers' features."""
    found: list[Tensor] = []
    for part in features.values():
        part.map(lambda tensor: found.append(tensor) or tensor)
    return found


def with_tensors(features: Features, tensors: Sequence[Tensor]) -> Features:
    """Return the features with the tensors of :func:`tensors_of` replaced, in that order."""
    left = iter(tensors)
    return {name: part.map(lambda _: next(left)) for name, part in features.items()}


def copied(features: Features) -> Features:
    """Return the features with copies of their tensors."""
    return {name: part.map(Tensor.clone) for name, part in features.items()}
