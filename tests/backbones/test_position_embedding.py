from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovrs.backbones import OpenClipVLM, build_vlm, position_embedding
from ovrs.backbones.position_embedding import PositionTables, adapt_position_embedding
from ovrs.structures import TowerRequest

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


# ---------------------------------------------------------------------- once per grid


@pytest.fixture
def resizes(monkeypatch):
    """The grids of all tables that are resized."""
    grids = []

    def counted(embedding, grid, rule="size"):
        grids.append(grid)
        return adapt_position_embedding(embedding, grid, rule)

    monkeypatch.setattr(position_embedding, "adapt_position_embedding", counted)
    return grids


@pytest.fixture
def parameter(embedding):
    return torch.nn.Parameter(embedding)


@pytest.mark.parametrize("rule", ["size", "dino"])
def test_table_is_resized_once_per_grid_and_bit_for_bit(parameter, resizes, rule):
    tables = PositionTables(rule)
    with torch.inference_mode():
        for grid in [(48, 48), (14, 20), (48, 48), (14, 20)] * 3:
            assert torch.equal(tables(parameter, grid), adapt_position_embedding(parameter, grid, rule))
        assert tables(parameter[None], (48, 48)).shape == (1 + 48 * 48, WIDTH)
    assert sorted(resizes[:2]) == [(14, 20), (48, 48)]
    assert len(resizes) <= 3


def test_table_in_another_type_is_cast_once(parameter, resizes):
    tables = PositionTables()
    with torch.no_grad():
        found = [tables(parameter, (48, 48), torch.bfloat16) for _ in range(2)]
    assert found[0] is found[1]
    assert torch.equal(found[0], adapt_position_embedding(parameter, (48, 48)).bfloat16())


def test_frozen_table_is_remembered_in_training(parameter, resizes):
    tables = PositionTables()
    parameter.requires_grad_(False)
    for _ in range(3):
        tables(parameter, (48, 48))
    assert len(resizes) == 1


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_trained_table_is_resized_every_time_and_seen_by_evaluations(parameter, resizes, options):
    tables = PositionTables()
    optimizer = torch.optim.AdamW([parameter], lr=0.1, **options)
    for _ in range(2):
        with torch.inference_mode():
            found = tables(parameter, (48, 48))
            assert torch.equal(found, adapt_position_embedding(parameter, (48, 48)))
        optimizer.zero_grad()
        tables(parameter, (48, 48)).square().sum().backward()
        assert (parameter.grad.abs().sum(dim=1) > 0).all()
        optimizer.step()
    assert len(resizes) == 4


def test_table_remembered_in_an_evaluation_can_be_trained_beside(parameter):
    tables = PositionTables()
    parameter.requires_grad_(False)
    with torch.inference_mode():
        tables(parameter, (48, 48))
    scale = torch.ones((), requires_grad=True)
    (tables(parameter, (48, 48)) * scale).square().sum().backward()
    assert scale.grad > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["tiny_vlm", "tiny_prior"])
def test_tower_resizes_once_for_many_images_of_a_size(request, resizes, name):
    tower = request.getfixturevalue(name)
    wanted = TowerRequest(dense="class_residual" if isinstance(tower, OpenClipVLM) else "final_norm")
    images = torch.randn(3, 3, 48, 64)
    first = [tower(image[None], wanted).dense for image in images]
    assert len(resizes) == 1
    assert torch.equal(tower(images[:1], wanted).dense, first[0])


def test_a_vision_language_model_may_follow_dinos_rule(tiny_cfg, tiny_arch):
    images = torch.randn(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    maps = {}
    for rule in ("runtime", "runtime_dino"):
        tiny_cfg.MODEL.VLM.INPUT_SIZE, tiny_cfg.MODEL.VLM.POSITION_EMBEDDING = 0, rule
        torch.manual_seed(0)
        vlm = build_vlm(tiny_cfg).eval()
        positions = vlm._positions(vlm.visual.positional_embedding, (5, 6))
        expected = adapt_position_embedding(
            vlm.visual.positional_embedding, (5, 6), "dino" if rule == "runtime_dino" else "size"
        )
        torch.testing.assert_close(positions, expected)
        maps[rule] = vlm(images, TowerRequest(dense="token_residual")).dense
    assert (maps["runtime"] - maps["runtime_dino"]).abs().max() > 1e-4
