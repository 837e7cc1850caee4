"""Cost volumes, fusion and decoder stages against their definitions with everything repeated per class."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from gsnet_reference import naive_cost, naive_decoder_stage, naive_fusion
from head_inputs import filled
from torch import nn

from ovrs.heads.blocks.cost_volume import cosine_cost
from ovrs.heads.blocks.decoder import GuidedUpsampling, resampler
from ovrs.heads.blocks.fusion import SingleCost
from ovrs.heads.gsnet import ConcatenationFusion, FusedQuery, QueryGuidedFusion

JOINT, HIDDEN = 12, 16
FUSIONS = {
    "query_guided": lambda prompts: QueryGuidedFusion(prompts, HIDDEN),
    "concatenation": lambda prompts: ConcatenationFusion(JOINT, HIDDEN),
    "fused_query": lambda prompts: FusedQuery(JOINT, prompts, HIDDEN),
    "single": lambda prompts: SingleCost(prompts, HIDDEN),
}


def make_inputs(classes: int, prompts: int, count: int, grid: tuple[int, int] = (5, 6)) -> list[torch.Tensor]:
    text = F.normalize(torch.randn(classes, prompts, JOINT), dim=-1)
    return [*(3 * torch.randn(2, JOINT, *grid) for _ in range(count)), text]


@pytest.mark.parametrize("prompts", [1, 3])
def test_cost_is_the_cosine_of_every_pixel_and_prompt(prompts: int):
    image, text = make_inputs(4, prompts, 1)
    cost = cosine_cost(image, text)
    assert cost.shape == (2, 4, prompts, 5, 6)
    assert cost.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(cost.flatten(0, 1), naive_cost(image, text), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cosine_cost(7 * image, text), cost, rtol=1e-5, atol=1e-6)


def test_cost_is_computed_in_fp32_under_autocast():
    image, text = make_inputs(4, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        cost = cosine_cost(image, text)
    assert cost.dtype == torch.float32
    assert torch.equal(cost, cosine_cost(image, text))


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("prompts", [1, 3])
def test_fusion_and_its_gradients_equal_the_definition(name: str, prompts: int):
    fusion = filled(FUSIONS[name](prompts))
    inputs = [part.requires_grad_() for part in make_inputs(5, prompts, 1 if name == "single" else 2)]
    *streams, text = inputs
    fast = fusion(*streams, text)
    naive = naive_fusion(fusion, streams, text)
    assert fast.shape == (2, 5, HIDDEN, 5, 6)
    torch.testing.assert_close(fast, naive, rtol=1e-4, atol=1e-5)

    target = torch.randn_like(fast)
    leaves = [*fusion.parameters(), *inputs]
    gradients = [torch.autograd.grad((out * target).sum(), leaves) for out in (fast, naive)]
    for mine, expected in zip(*gradients, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("name", FUSIONS)
@torch.no_grad()
def test_fused_maps_of_a_class_do_not_depend_on_the_others(name: str):
    fusion = filled(FUSIONS[name](1))
    *streams, text = make_inputs(5, 1, 1 if name == "single" else 2)
    chosen = [3, 1]
    torch.testing.assert_close(fusion(*streams, text[chosen]), fusion(*streams, text)[:, chosen], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_query_guided_maps_lie_between_zero_and_two():
    fusion = filled(QueryGuidedFusion(1, HIDDEN))
    fused = fusion(*make_inputs(5, 1, 2))
    assert fused.min() > 0
    assert 1 < fused.max() < 2


@pytest.mark.parametrize("guidance_dims", [(), (6,), (6, 4)])
def test_decoder_stage_and_its_gradients_equal_concatenation(guidance_dims: tuple[int, ...]):
    stage = filled(GuidedUpsampling(24, 18, guidance_dims, 32)).double()
    x = torch.randn(2, 3, 24, 4, 5, dtype=torch.float64, requires_grad=True)
    guidance = [torch.randn(2, dim, 8, 10, dtype=torch.float64, requires_grad=True) for dim in guidance_dims]
    fast = stage(x, stage.guide(guidance)).flatten(0, 1)
    naive = naive_decoder_stage(stage, x.flatten(0, 1), [part.repeat_interleave(3, dim=0) for part in guidance])
    assert fast.shape == (6, 32, 8, 10)
    torch.testing.assert_close(fast, naive)

    target = torch.randn_like(fast)
    gradients = [
        torch.autograd.grad((out * target).sum(), [*stage.parameters(), x, *guidance]) for out in (fast, naive)
    ]
    for mine, expected in zip(*gradients, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-9)


def test_decoder_width_that_is_no_multiple_of_its_groups_is_refused():
    with pytest.raises(ValueError, match="decoder level must be a multiple of 16, got 24"):
        GuidedUpsampling(24, 18, (), 24)


@pytest.mark.parametrize(
    ("scale", "kind", "kernel"),
    [
        (Fraction(1), nn.Conv2d, 1),
        (Fraction(2), nn.ConvTranspose2d, 2),
        (Fraction(4), nn.ConvTranspose2d, 4),
        (Fraction(1, 2), nn.Conv2d, 2),
        (Fraction(1, 4), nn.Conv2d, 4),
    ],
)
def test_resampler_scales_the_grid_without_overlap(scale: Fraction, kind: type[nn.Module], kernel: int):
    layer = resampler(6, 5, scale)
    assert type(layer) is kind
    assert layer.kernel_size == layer.stride == (kernel, kernel)
    assert layer(torch.randn(1, 6, 8, 12)).shape == (1, 5, int(8 * scale), int(12 * scale))


def test_resampling_between_unrelated_grids_is_refused():
    with pytest.raises(ValueError, match=r"cannot resample by 3/2"):
        resampler(6, 5, Fraction(3, 2))
