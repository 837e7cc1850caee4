"""How many classes are taken at once."""

from __future__ import annotations

import pytest
import torch

from ovrs.heads.blocks import chunks
from ovrs.heads.blocks.chunks import BYTES_PER_CELL, classes_per_pass, maps_in

GIB = 2**30


@pytest.mark.parametrize(("images", "classes", "chunk"), [(1, 100, 40), (8, 100, 5), (8, 3, 3), (100, 5, 1)])
@torch.no_grad()
def test_on_a_cpu_images_times_classes_is_about_constant(images: int, classes: int, chunk: int):
    assert classes_per_pass(0, torch.empty(images, 2, 6, 6), classes, 40) == chunk
    assert classes_per_pass(7, torch.empty(images, 2, 6, 6), classes, 40) == 7


def test_with_gradients_all_classes_are_taken():
    assert classes_per_pass(7, torch.empty(8, 2, 6, 6), 100, 40) == 100


def test_memory_bounds_the_maps():
    assert maps_in(10 * BYTES_PER_CELL * 36, 36) == 10
    assert maps_in(100 * GIB, 24 * 24) == 2**31 // (4096 * 24 * 24), "no tensor outgrows 32-bit indices"


class OnCard:
    """A tensor as far as the rule looks at it."""

    is_cuda, device, shape = True, torch.device("cuda", 0), (8, 512, 24, 24)


@torch.no_grad()
def test_on_a_gpu_free_memory_decides(monkeypatch: pytest.MonkeyPatch):
    for free, chunk in ((100 * GIB, 40), (2 * GIB, 11), (0, 1)):
        monkeypatch.setattr(chunks, "free_memory", lambda index, free=free: free)
        assert classes_per_pass(0, OnCard(), 40, 40) == chunk
