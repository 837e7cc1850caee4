from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovrs.backbones.position_embedding import adapt_position_embedding

NATIVE, WIDTH = 28, 5


@pytest.fixture
def embedding():
    return torch.randn(1 + NATIVE * NATIVE, WIDTH)


def as_image(rows: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """[h * w, W] in row-major order -> [1, W, h, w]."""
    return rows.reshape(*grid, WIDTH).permute(2, 0, 1)[None]


@pytest.mark.parametrize("rule", ["size", "dino"])
def test_native_grid_gives_the_table_itself(embedding, rule):
    assert adapt_position_embedding(embedding, (NATIVE, NATIVE), rule) is embedding


@pytest.mark.parametrize("rule", ["size", "dino"])
@pytest.mark.parametrize("grid", [(48, 48), (14, 14), (20, 48), (1, 3)])
def test_class_row_stays_and_the_rest_has_one_row_per_cell(embedding, grid, rule):
    result = adapt_position_embedding(embedding, grid, rule)
    assert result.shape == (1 + grid[0] * grid[1], WIDTH)
    assert torch.equal(result[0], embedding[0])


@pytest.mark.parametrize("grid", [(48, 48), (14, 14), (20, 48)])
def test_size_rule_is_bicubic_to_the_size_bit_for_bit(embedding, grid):
    native = as_image(embedding[1:], (NATIVE, NATIVE))
    expected = F.interpolate(native, size=grid, mode="bicubic", align_corners=False)
    assert torch.equal(as_image(adapt_position_embedding(embedding, grid)[1:], grid), expected)


@pytest.mark.parametrize("grid", [(48, 48), (14, 14), (20, 48)])
def test_dino_rule_is_bicubic_by_the_factor_bit_for_bit(embedding, grid):
    native = as_image(embedding[1:], (NATIVE, NATIVE))
    factor = tuple((side + 0.1) / NATIVE for side in grid)
    expected = F.interpolate(native, scale_factor=factor, mode="bicubic", align_corners=False)
    assert torch.equal(as_image(adapt_position_embedding(embedding, grid, "dino")[1:], grid), expected)


def test_dino_rule_at_384_pixels_is_the_published_factor_and_not_the_size(embedding):
    native = as_image(embedding[1:], (NATIVE, NATIVE))
    published = F.interpolate(native, scale_factor=1.717857142857143, mode="bicubic", align_corners=False)
    dino = as_image(adapt_position_embedding(embedding, (48, 48), "dino")[1:], (48, 48))
    size = as_image(adapt_position_embedding(embedding, (48, 48), "size")[1:], (48, 48))
    assert torch.equal(dino, published)
    difference = (dino - size).pow(2).mean().sqrt() / size.pow(2).mean().sqrt()
    assert 0.05 < difference < 0.12  # 7.7 % on white noise


@pytest.mark.parametrize("rule", ["size", "dino"])
@pytest.mark.parametrize("native", [2, 14, 28])
def test_every_grid_comes_out_at_its_size(native, rule):
    embedding = torch.randn(1 + native * native, 1)
    for side in range(1, 100):
        assert len(adapt_position_embedding(embedding, (side, 3), rule)) == 1 + 3 * side


def test_half_precision_is_resized_in_float32(embedding):
    half = embedding.bfloat16()
    result = adapt_position_embedding(half, (48, 48))
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, adapt_position_embedding(half.float(), (48, 48)).bfloat16())


def test_gradient_reaches_every_position(embedding):
    embedding.requires_grad_()
    adapt_position_embedding(embedding, (48, 48), "dino").pow(2).sum().backward()
    assert (embedding.grad.abs().sum(dim=1) > 0).all()


def test_grid_that_is_no_square_is_refused():
    with pytest.raises(ValueError, match="of 13 rows is not 1"):
        adapt_position_embedding(torch.randn(13, WIDTH), (4, 4))
