"""What a head can show of its inside, and how it is recorded while the head works.

A head lists its :class:`Quantity` values by name; each says how it is read after a pass: from what the head was given,
or from the outputs of modules ("joints") that hooks noted. Without a recording there are no hooks and nothing is read;
with one the head computes what it always computes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ovrs.structures import TextFeatures, TowerFeatures

Kind = Literal["map", "class_maps", "features", "class_features", "relations", "class_relations", "class_values"]
# The shape of each kind, without the batch.
SHAPES: dict[Kind, str] = {
    "map": "[h, w]",
    "class_maps": "[T, h, w]",
    "features": "[C, h, w]",
    "class_features": "[T, C, h, w]",
    "relations": "[h, w, h, w]: of a cell to all cells, 0 for none",
    "class_relations": "[T, T, h, w]: of a class to all classes, in every cell",
    "class_values": "[T]",
}


@dataclass(frozen=True)
class Pass:
    """One pass of a head: what it was given, what it returned, and what its joints said.

    Attributes:
        features: of the towers, as the head got them.
        text: the classes.
        logits: what the head returned.
        calls: {joint: (inputs, output) of every call, in order}.
    """

    features: Mapping[str, TowerFeatures]
    text: TextFeatures
    logits: Tensor
    calls: Mapping[nn.Module, list[tuple[tuple[Any, ...], Any]]] = field(default_factory=dict)

    def inputs(self, joint: nn.Module) -> tuple[Any, ...]:
        """Return what a joint that is called once was given."""
        return self.calls[joint][0][0]

    def output(self, joint: nn.Module) -> Any:
        """Return what a joint returned; of one that takes classes a few at a time, the outputs of all classes."""
        outputs = [output for _, output in self.calls[joint]]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


@dataclass(frozen=True)
class Quantity:
    """Something inside a head that can be shown.

    Attributes:
        kind: what it is, and so its shape, see :data:`SHAPES`; ``T`` may be words where the head decides between them.
        meaning: a line for a person, with the symbol or equation of the paper.
        read: from a pass to [B, ...] of the kind's shape. It runs right after the head, at the head's precision.
        joints: modules of the head whose calls ``read`` looks at.
    """

    kind: Kind
    meaning: str
    read: Callable[[Pass], Tensor]
    joints: tuple[nn.Module, ...] = ()


def output_of(joint: nn.Module, kind: Kind, meaning: str) -> Quantity:
    """Return the quantity that a module of a head returns."""
    return Quantity(kind, meaning, lambda seen: seen.output(joint), (joint,))


@contextmanager
def recording(head: nn.Module, wanted: Mapping[str, Quantity]) -> Iterator[list[dict[str, Tensor]]]:
    """Record quantities while a head works.

    Args:
        head: called as ``head(features, text)`` within the block, any number of times.
        wanted: the quantities by name.

    Yields:
        A list that gets {name: float32 tensor [B, ...] on the CPU} for every pass.
    """
    calls: dict[nn.Module, list[tuple[tuple[Any, ...], Any]]] = defaultdict(list)
    found: list[dict[str, Tensor]] = []

    def note(joint: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[joint].append((tuple(map(_kept, inputs)), _kept(output)))

    @torch.no_grad()
    def read(_: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        seen = Pass(*inputs, logits, dict(calls))
        calls.clear()
        found.append({name: quantity.read(seen).detach().float().cpu() for name, quantity in wanted.items()})
        calls.clear()  # reading may call joints again

    joints = dict.fromkeys(joint for quantity in wanted.values() for joint in quantity.joints)
    handles = [joint.register_forward_hook(note) for joint in joints]
    handles.append(head.register_forward_hook(read))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _kept(value: Any) -> Any:
    """Return a copy of a tensor, which what comes next may overwrite in place; anything else as it is."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple):
        parts = map(_kept, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
