"""The aggregator computes guidance and padding once; here it is held against the layer that repeats both."""

import pytest
import torch
import torch.nn.functional as F
from gsnet_reference import naive_class_attention, naive_layer
from head_inputs import filled

from ovrs.heads.blocks.aggregator import AggregatorLayer, build_layer
from ovrs.heads.blocks.class_attention import ClassAttention
from ovrs.heads.cost_volume import CostVolumeOptions

WIDTH, HEADS = 32, 4


def make_wide_layer(heads: int, window: int, kind: str, pad_to: int) -> AggregatorLayer:
    options = CostVolumeOptions(WIDTH, "swin", 1, heads, 1, 1, window, kind, pad_to)
    return filled(build_layer(options))


def make_layer(window: int = 4, kind: str = "linear", pad_to: int = 256) -> AggregatorLayer:
    return make_wide_layer(HEADS, window, kind, pad_to)


def make_maps(classes: int, grid: tuple[int, int], images: int = 2) -> tuple[torch.Tensor, ...]:
    """Cost maps [B, T, C, H, W], appearance [B, C, H, W], text guidance [T, C]."""
    maps = torch.randn(images, classes, WIDTH, *grid)
    return maps, F.relu(torch.randn(images, WIDTH, *grid)), F.relu(torch.randn(classes, WIDTH))


def run_fast(layer: AggregatorLayer, maps, appearance, text, pooling: int, chunk: int = 1000) -> torch.Tensor:
    out = layer(maps.permute(0, 1, 3, 4, 2), appearance.permute(0, 2, 3, 1), text, pooling, chunk)
    return out.permute(0, 1, 4, 2, 3)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("pooling", [1, 2])
@pytest.mark.parametrize("kind", ["linear", "full"])
@pytest.mark.parametrize("classes", [2, 5, 40, 256, 300])
@torch.no_grad()
def test_layer_equals_explicit_padding_and_windows(classes: int, kind: str, pooling: int):
    layer = make_layer(kind=kind)
    inputs = make_maps(classes, (6, 6), images=1 if classes > 40 else 2)
    assert_close(run_fast(layer, *inputs, pooling), naive_layer(layer, *inputs, pooling))


@pytest.mark.parametrize(
    ("grid", "window"),
    [
        pytest.param((8, 8), 4, id="divisible"),
        pytest.param((8, 12), 4, id="rectangular"),
        pytest.param((9, 9), 4, id="padded"),
        pytest.param((7, 10), 4, id="rectangular-padded"),
        pytest.param((7, 10), 5, id="odd-window"),
        pytest.param((5, 5), 12, id="window-larger-than-grid"),
        pytest.param((4, 4), 4, id="window-equals-grid"),
        pytest.param((3, 10), 4, id="window-larger-than-one-side"),
        pytest.param((1, 6), 4, id="one-row"),
    ],
)
@pytest.mark.parametrize("pooling", [1, 2])
@torch.no_grad()
def test_any_grid_equals_explicit_windows(grid: tuple[int, int], window: int, pooling: int):
    if pooling > min(grid):
        grid = (pooling, grid[1])
    layer = make_layer(window)
    inputs = make_maps(3, grid)
    assert_close(run_fast(layer, *inputs, pooling), naive_layer(layer, *inputs, pooling))


@pytest.mark.parametrize("kind", ["linear", "full"])
@pytest.mark.parametrize("pooling", [1, 2])
def test_gradients_equal_those_of_the_explicit_layer(kind: str, pooling: int):
    layer = make_layer(kind=kind).double()
    gradients = []
    inputs = [part.double().requires_grad_() for part in make_maps(5, (6, 7))]
    target = torch.randn(2, 5, WIDTH, 6, 7, dtype=torch.float64)
    for run in (run_fast, naive_layer):
        loss = ((run(layer, *inputs, pooling) - target) ** 2).mean()
        gradients.append(torch.autograd.grad(loss, [*layer.parameters(), *inputs]))
    names = [*(name for name, _ in layer.named_parameters()), "maps", "appearance", "text"]
    for name, fast, naive in zip(names, *gradients, strict=True):
        # A key's bias moves all logits of a softmax alike: its gradient is zero but for rounding.
        softmax_bias = name.endswith("attn.k.bias") or (kind == "full" and name.endswith("k.bias"))
        assert softmax_bias or naive.abs().max() > 1e-6, name
        # Linear attention sums in fp32 by design.
        error = (fast - naive).abs().max()
        assert error <= 1e-5 * naive.abs().max() + 1e-9, (name, error)


@pytest.mark.parametrize("kind", ["linear", "full"])
@torch.no_grad()
def test_padding_takes_part_below_its_count_and_not_above(kind: str):
    attention = filled(ClassAttention(WIDTH, HEADS, kind, pad_to=6))

    def change_by_padding(classes: int) -> float:
        x, text = torch.randn(1, classes, 3, 3, WIDTH), torch.randn(classes, WIDTH)
        before = attention(x, text)
        attention.padding_tokens.add_(torch.randn(WIDTH))
        return float((attention(x, text) - before).abs().max())

    assert change_by_padding(5) > 1e-3
    assert change_by_padding(6) == 0.0


@pytest.mark.parametrize("kind", ["linear", "full"])
@torch.no_grad()
def test_no_padding_at_all_equals_explicit_attention(kind: str):
    attention = filled(ClassAttention(WIDTH, HEADS, kind, pad_to=0))
    maps, _, text = make_maps(3, (4, 4))
    fast = attention(maps.permute(0, 1, 3, 4, 2), text).permute(0, 1, 4, 2, 3)
    assert_close(fast, naive_class_attention(attention, maps, text, 1))


@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
@torch.no_grad()
def test_chunks_of_classes_do_not_change_the_layer(chunk: int):
    layer = make_layer()
    inputs = make_maps(5, (6, 6))
    torch.testing.assert_close(run_fast(layer, *inputs, 1, chunk), run_fast(layer, *inputs, 1), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_shifted_windows_do_not_wrap_around_the_image():
    layer = make_layer(window=4)
    maps, appearance, _ = make_maps(1, (8, 8), images=1)
    x, appearance = maps.permute(0, 1, 3, 4, 2), appearance.permute(0, 2, 3, 1)
    corner = x.clone()
    corner[:, :, 0, 0] += torch.randn(WIDTH)
    change = (layer.spatial(corner, appearance) - layer.spatial(x, appearance)).abs().amax(dim=(0, 1, 4))
    # Row 0 shares a window with rows 0..3, and those share shifted windows with rows up to 5.
    assert (change[:6, :6] > 1e-5).all()
    assert change[6:].max() < 1e-5
    assert change[:, 6:].max() < 1e-5


def test_training_works_after_the_same_grid_was_seen_in_inference_mode():
    layer = make_wide_layer(1, 4, "full", 16)
    inputs = make_maps(3, (11, 6))
    with torch.inference_mode():
        expected = run_fast(layer, *inputs, 1)
    actual = run_fast(layer, *inputs, 1)
    actual.sum().backward()
    torch.testing.assert_close(actual, expected.clone())


@pytest.mark.parametrize("kind", ["linear", "full"])
@torch.no_grad()
def test_bf16_stays_close_to_fp32(kind: str):
    layer = make_layer(kind=kind)
    inputs = make_maps(5, (9, 8))
    exact = run_fast(layer, *inputs, 2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run_fast(layer, *inputs, 2)
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_unknown_kind_of_class_attention_is_refused():
    with pytest.raises(ValueError, match=r"'linear' or 'full'.*'quadratic'"):
        ClassAttention(WIDTH, HEADS, "quadratic")
