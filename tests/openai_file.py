"""Weights in the format of OpenAI's CLIP files."""

from __future__ import annotations

import torch
from torch import nn

SCALARS = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}  # in every such file, no weights


def random_state(clip: nn.Module) -> dict[str, torch.Tensor]:
    """A random state dict for the open_clip model of a VLM, in float16 and with fused attention."""
    state, parts = {}, {}
    for name, tensor in clip.state_dict().items():
        tensor = torch.randn_like(tensor).half()
        stem, _, part = name.rpartition(".")
        if part in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            parts.setdefault(f"{stem}.in_proj_weight", []).append(tensor)
        else:
            state[name] = tensor
    assert all(len(tensors) == 3 for tensors in parts.values())
    return state | {name: torch.cat(tensors) for name, tensors in parts.items()}


def as_torchscript(state: dict[str, torch.Tensor]) -> torch.jit.ScriptModule:
    """A TorchScript archive whose parameters have these names, and ``SCALARS``."""
    root = nn.Module()
    for name, tensor in (state | {name: torch.tensor(value) for name, value in SCALARS.items()}).items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        module.register_buffer(leaf, tensor)
    return torch.jit.script(root)
