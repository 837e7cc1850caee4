"""Bringing weights from one project's layout to another's, without changing a bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ovrs.errors import choose
from ovrs.files import replacing
from ovrs.zoo.layouts import LAYOUTS, from_any_layout


def to_layout(state: Mapping[str, Tensor], project: str = "") -> dict[str, Tensor]:
    """Return a model's tensors in the names of a project, whatever names they have.

    Args:
        state: tensors by name, of this or of an original project.
        project: a key of ``LAYOUTS``; "" for this project. Tensors that the original derives from the geometry are
            left out.

    Raises:
        ConfigError: unknown project.
        WeightsError: tensors that their layout does not know, or that the project's model does not have.
    """
    ours = from_any_layout(dict(state))
    return LAYOUTS[choose("--to", project, sorted(LAYOUTS))].to_official(ours) if project else ours


def write_weights(state: Mapping[str, Tensor], target: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors whole or not at all.

    Args:
        state: tensors by name; those that share memory are written separately.
        target: ``.safetensors``, or another ending for a PyTorch file with the key ``model``.
        metadata: texts that a safetensors file keeps beside its tensors.
    """
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    with replacing(target) as temporary:
        if target.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, temporary, metadata=dict(metadata or {}))
        else:
            torch.save({"model": state}, temporary)
