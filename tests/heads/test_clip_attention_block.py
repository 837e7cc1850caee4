"""The attentions of the last block against the written-out matrices, and NACLIP's Gaussian against the original's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden.free import assert_close, read_free

from ovrs.heads.blocks.clip_attention import attend, class_bias, neighbour_bias

GRID = (3, 5)
HEADS, WIDTH = 2, 4


@pytest.fixture
def qkv() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, HEADS, 1 + GRID[0] * GRID[1], WIDTH, generator=generator) for _ in range(3)]


def softmax(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | float = 0.0) -> torch.Tensor:
    return (a @ b.mT / WIDTH**0.5 + bias).softmax(dim=-1)


def matrix(kind: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    if kind == "maskclip":
        return torch.eye(q.shape[2]).expand(2, HEADS, -1, -1)
    if kind == "naclip":
        gauss = torch.zeros(1 + GRID[0] * GRID[1], 1 + GRID[0] * GRID[1])
        for a in range(GRID[0] * GRID[1]):
            for b in range(GRID[0] * GRID[1]):
                dy, dx = a // GRID[1] - b // GRID[1], a % GRID[1] - b % GRID[1]
                gauss[1 + a, 1 + b] = torch.exp(torch.tensor(-(dy**2 + dx**2) / (2 * 1.5**2)))
        return softmax(k, k, gauss)
    return {
        "vanilla": lambda: softmax(q, k),
        "clearclip": lambda: softmax(q, q),
        "sclip": lambda: softmax(q, q) + softmax(k, k),
        "segearth": lambda: softmax(q, q) + softmax(k, k) + softmax(v, v),
    }[kind]()


KINDS = {"vanilla": 1, "maskclip": 1, "clearclip": 1, "sclip": 2, "naclip": 1, "segearth": 3}


@pytest.mark.parametrize(("kind", "row_sum"), KINDS.items())
def test_values_are_weighed_by_the_methods_matrix(kind: str, row_sum: int, qkv: list[torch.Tensor]):
    q, k, v = qkv
    torch.testing.assert_close(attend(kind, q, k, v, GRID, sigma=1.5), matrix(kind, q, k, v) @ v)
    same = torch.ones_like(v)  # equal values come back, times the sum of a row
    if kind != "segearth":  # whose matrix depends on the values
        torch.testing.assert_close(attend(kind, q, k, same, GRID), row_sum * same)


@pytest.mark.parametrize("kind", ["segearth", "clearclip"])
def test_attention_of_earlier_blocks_is_mixed_in(kind: str, qkv: list[torch.Tensor]):
    q, k, v = qkv
    earlier = [(torch.randn_like(q), torch.randn_like(q)) for _ in range(4)]
    ordinary = sum(softmax(*pair) for pair in earlier)
    expected = KINDS[kind] * (0.4 * matrix(kind, q, k, v) + 0.6 * ordinary) @ v
    torch.testing.assert_close(attend(kind, q, k, v, GRID, earlier=earlier, share=0.6), expected)
    # as published, no share means the method's own matrix without the factor
    torch.testing.assert_close(attend(kind, q, k, v, GRID, earlier=earlier), attend(kind, q, k, v, GRID))


def test_a_narrow_gaussian_over_sharp_keys_leaves_every_token_alone(qkv: list[torch.Tensor]):
    q, k, v = qkv
    sharp = 100 * F.normalize(k, dim=-1)
    torch.testing.assert_close(attend("naclip", q, sharp, v, GRID, sigma=1e-3), attend("maskclip", q, k, v, GRID))


def test_gaussian_equals_the_original():
    golden = read_free("naclip_own")
    assert_close(neighbour_bias((14, 14), golden["meta"]["gaussian_std"], torch.zeros(())), golden, "gauss")


def test_class_bias_belongs_to_each_image():
    generator = torch.Generator().manual_seed(0)
    cosines, token = torch.randn(2, 3, *GRID, generator=generator), torch.randn(2, 8, generator=generator)
    words = F.normalize(torch.randn(3, 8, generator=generator), dim=-1)
    shifted = class_bias(cosines, token, words, -0.3)
    for image in range(2):
        for word in range(3):
            whole = F.cosine_similarity(token[image], words[word], dim=0)
            torch.testing.assert_close(shifted[image, word], cosines[image, word] - 0.3 * whole)
    assert class_bias(cosines, token, words, 0.0) is cosines
