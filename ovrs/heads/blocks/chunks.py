"""Taking classes a few at a time, to bound memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Cost maps (images x classes) that one pass of the CAT-Seg family's memory-hungry parts takes at inference on a CPU.
MAPS_PER_PASS = 40
# What one cost map takes at the peak of aggregator and decoder, for every cell of its grid, in fp32.
BYTES_PER_CELL = 20 * 1024
# Values of the largest of its tensors for every cell; no tensor may outgrow the kernels' 32-bit indices.
_VALUES_PER_CELL = 4096


def classes_per_pass(configured: int, image: Tensor, classes: int, maps: int) -> int:
    """Return how many classes the memory-hungry parts of a head take at once.

    With gradients all: autograd keeps everything anyway. Otherwise as configured (``MODEL.SEM_SEG_HEAD.CLASS_CHUNK``),
    or, for 0, as many as fit into half of a GPU's free memory; elsewhere so that images times classes is about
    ``maps``.

    Args:
        configured: classes at once; 0 for the rule.
        image: [B, C, h, w] features on the grid of the cost maps.
        classes: ``T``.
        maps: cost maps (images x classes) at once where there is no GPU.
    """
    if torch.is_grad_enabled():
        return classes
    if configured:
        return configured
    images, _, height, width = image.shape
    if image.is_cuda:
        maps = maps_in(free_memory(image.device.index) // 2, height * width)
    return max(min(maps // images, classes), 1)


def maps_in(memory: int, cells: int) -> int:
    """Return how many cost maps of ``cells`` cells can be decoded at once in ``memory`` bytes."""
    return min(memory // (BYTES_PER_CELL * cells), 2**31 // (_VALUES_PER_CELL * cells))


@torch.compiler.assume_constant_result
def free_memory(index: int) -> int:
    """Return the bytes of a GPU that this process can still use, what PyTorch holds in reserve included."""
    free, _ = torch.cuda.mem_get_info(index)
    return free + torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)


def over_classes(function: Callable[..., Tensor], chunk: int, *tensors: Tensor) -> Tensor:
    """Apply a function that treats each class alone to ``chunk`` classes at a time.

    Args:
        function: from tensors [B, t, ...] to [B, t, ...].
        chunk: t at most.
        tensors: [B, T, ...] each.
    """
    parts = [function(*part) for part in zip(*(tensor.split(chunk, dim=1) for tensor in tensors), strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
