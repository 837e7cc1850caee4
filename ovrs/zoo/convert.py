"""Bringing weights from one project's layout to another's, without changing a bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ovrs.errors import choose
from ovrs.files import replacing
from ovrs.zoo.layouts import LAYOUTS, from_any_layout
from ovrs.zoo.slim import read_weights


def import_weights(source: Path, target: Path) -> dict[str, Tensor]:
    """Write a checkpoint of this or of an original project in this project's names.

    Args:
        source: the file; see :func:`ovrs.zoo.slim.read_weights` for what is understood.
        target: ``.safetensors``, or another ending for a PyTorch file with the key ``model``.

    Returns:
        What was written.

    Raises:
        WeightsError: an unreadable file, or tensors that its layout does not know.
    """
    state = from_any_layout(read_weights(source))
    write_weights(state, target)
    return state


def export_weights(source: Path, target: Path, project: str) -> dict[str, Tensor]:
    """Write a checkpoint in the names of an original project, whatever names it has.

    Args:
        source: the file.
        target: as for :func:`import_weights`.
        project: whose names, a key of ``LAYOUTS``.

    Returns:
        What was written. Tensors that the original derives from the geometry are left out.

    Raises:
        ConfigError: unknown project.
        WeightsError: an unreadable file, or tensors that the project's model does not have.
    """
    layout = LAYOUTS[choose("--to", project, sorted(LAYOUTS))]
    state = layout.to_official(from_any_layout(read_weights(source)))
    write_weights(state, target)
    return state


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
