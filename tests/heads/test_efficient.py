"""The efficient aggregator computes guidance once per image; here it is held against the layer that repeats it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from efficient_reference import naive_class_fusion, naive_efficient_layer, naive_spatial_fusion
from head_checks import BLIND, BLIND_CLASSES, assert_close
from head_inputs import filled

from ovrs.heads.blocks.aggregator import AggregatorLayer, build_layer
from ovrs.heads.blocks.efficient import ClassFusion, SpatialFusion
from ovrs.heads.cost_volume import CostVolumeOptions, RotationOptions

WIDTH, HEADS = 32, 8


def make_layer() -> AggregatorLayer:
    return filled(build_layer(CostVolumeOptions(WIDTH, "efficient", num_heads=HEADS)))


def make_maps(classes: int, grid: tuple[int, int], images: int = 2) -> tuple[torch.Tensor, ...]:
    """Cost maps [B, T, C, H, W], appearance [B, C, H, W], text guidance [T, C]."""
    maps = torch.randn(images, classes, WIDTH, *grid)
    return maps, F.relu(torch.randn(images, WIDTH, *grid)), F.relu(torch.randn(classes, WIDTH))


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-3, -1)


def run_fast(layer: AggregatorLayer, maps, appearance, text, pooling: int, chunk: int = 1000) -> torch.Tensor:
    return layer(channels_last(maps), channels_last(appearance), text, pooling, chunk).movedim(-1, -3)


@pytest.mark.parametrize("grid", [(6, 6), (4, 10), (9, 6), (7, 7), (2, 2), (2, 11)])
@torch.no_grad()
def test_spatial_fusion_equals_concatenated_guidance_and_explicit_softmax(grid: tuple[int, int]):
    fusion = filled(SpatialFusion(WIDTH, HEADS))
    maps, appearance, _ = make_maps(3, grid)
    fast = fusion(channels_last(maps), channels_last(appearance)).movedim(-1, -3)
    assert_close(fast - maps, naive_spatial_fusion(fusion, maps, appearance) - maps)


@pytest.mark.parametrize("grid", [(6, 6), (4, 10), (9, 6), (7, 7)])
@pytest.mark.parametrize("pooling", [1, 2, 3])
@torch.no_grad()
def test_class_fusion_equals_concatenated_guidance_and_explicit_softmax(grid: tuple[int, int], pooling: int):
    fusion = filled(ClassFusion(WIDTH, HEADS))
    maps, _, text = make_maps(5, grid)
    fast = fusion(channels_last(maps), text, pooling).movedim(-1, -3)
    assert_close(fast - maps, naive_class_fusion(fusion, maps, text, pooling) - maps)


@pytest.mark.parametrize("pooling", [1, 2])
@pytest.mark.parametrize("classes", [1, 2, 40])
@torch.no_grad()
def test_layer_of_any_number_of_classes_equals_the_explicit_one(classes: int, pooling: int):
    layer = make_layer()
    inputs = make_maps(classes, (6, 6), images=1 if classes > 2 else 2)
    assert_close(run_fast(layer, *inputs, pooling), naive_efficient_layer(layer, *inputs, pooling))


@pytest.mark.parametrize("grid", [(6, 8), (7, 5)])
def test_gradients_equal_those_of_the_explicit_layer(grid: tuple[int, int]):
    layer = make_layer().double()
    inputs = [part.double().requires_grad_() for part in make_maps(4, grid)]
    target = torch.randn(inputs[0].shape, dtype=torch.float64)
    leaves = [*layer.parameters(), *inputs]
    fast, naive = (
        torch.autograd.grad(((run(layer, *inputs, 2) - target) ** 2).mean(), leaves)
        for run in (run_fast, naive_efficient_layer)
    )
    names = [*(name for name, _ in layer.named_parameters()), "maps", "appearance", "text"]
    for name, ours, expected in zip(names, fast, naive, strict=True):
        if not name.endswith(BLIND + BLIND_CLASSES):
            assert expected.abs().max() > 1e-6, name
        assert (ours - expected).abs().max() <= 1e-9 * expected.abs().max() + 1e-15, name


@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
@torch.no_grad()
def test_chunks_of_classes_do_not_change_the_layer(chunk: int):
    layer = make_layer()
    inputs = make_maps(5, (6, 6))
    torch.testing.assert_close(run_fast(layer, *inputs, 2, chunk), run_fast(layer, *inputs, 2), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_spatial_fusion_keeps_classes_apart_and_class_fusion_positions():
    layer = make_layer()
    maps, appearance, text = make_maps(3, (6, 6), images=1)
    other = maps.clone()
    other[:, 1] += torch.randn(WIDTH, 6, 6)
    change = layer.spatial(channels_last(other), channels_last(appearance)) - layer.spatial(
        channels_last(maps), channels_last(appearance)
    )
    assert change[:, 1].abs().max() > 0.1
    assert not change[:, [0, 2]].any()

    other = maps.clone()
    other[..., 2, 3] += torch.randn(WIDTH)
    change = layer.classes(channels_last(other), text, 1) - layer.classes(channels_last(maps), text, 1)
    changed = change.abs().amax(dim=(0, 1, 4)) > 1e-4
    assert changed.nonzero().tolist() == [[2, 3]]


@torch.no_grad()
def test_bf16_stays_close_to_fp32():
    layer = make_layer()
    inputs = make_maps(5, (8, 8))
    exact = run_fast(layer, *inputs, 2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run_fast(layer, *inputs, 2)
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_published_layer_has_the_published_size():
    layer = build_layer(RotationOptions())

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert (count(layer.spatial), count(layer.classes), count(layer)) == (582_912, 247_680, 830_592)
    assert (layer.spatial.attn.heads, layer.classes.heads) == (8, 8)


@torch.no_grad()
def test_layer_starts_as_the_official_training_does():
    layer = build_layer(RotationOptions())
    stride, depthwise = layer.spatial.attn.reduce_k, layer.spatial.mix
    assert stride.weight.std() == pytest.approx(math.sqrt(2 / (2 * 2 * 256)), rel=0.05)
    assert depthwise.weight.std() == pytest.approx(math.sqrt(2 / (7 * 7)), rel=0.05)
    linears = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 14
    assert all(linear.weight.std() == pytest.approx(0.02, rel=0.05) for linear in linears)
    for module in (*linears, stride, depthwise, layer.spatial.attn.reduce_v):
        assert not module.bias.any()
