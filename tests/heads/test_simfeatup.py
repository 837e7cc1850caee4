"""SimFeatUp against the original's kernels and stages, and against the written-out sums."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from golden.free import assert_close, normalised_image, read_free, recorded_weights

from ovrs.heads.blocks.simfeatup import JointBilateralUpsampler, SimFeatUp, apply_kernels


def naive(source: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Enlarge, reflect, and add up tap by tap."""
    height, width = kernels.shape[-2:]
    side = round(kernels.shape[1] ** 0.5)
    enlarged = F.interpolate(source, size=(height, width), mode="bicubic", align_corners=False)
    padded = F.pad(enlarged, [side // 2] * 4, mode="reflect")
    return sum(
        kernels[:, None, i * side + j] * padded[:, :, i : i + height, j : j + width]
        for i in range(side)
        for j in range(side)
    )


@torch.inference_mode()
def test_kernels_and_stages_equal_the_original():
    golden = read_free("segearth_jbu")
    upsampler = SimFeatUp(512)
    upsampler.load_state_dict(recorded_weights(golden["meta"], "upsampler."))  # strict: the released names
    window = normalised_image(golden["meta"])[None, :, :224, :224]
    features = torch.from_numpy(golden["dense"])[None]  # every eighth channel; of a stage every sixteenth is recorded
    for side in (28, 56, 112, 224):
        kernels = upsampler.up.kernels(F.adaptive_avg_pool2d(window, side))
        features = apply_kernels(features, kernels)
        assert_close(kernels[0].permute(1, 2, 0).unflatten(2, (11, 11)), golden, f"kernel{side}")
        every_sixteenth = torch.zeros(512, side, side)
        every_sixteenth[::8] = features[0]
        assert_close(every_sixteenth, golden, f"stage{side}")


@pytest.mark.parametrize("radius", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(14, 14), (7, 9), (13, 30), (3, 20)])
def test_matrix_products_equal_tap_by_tap_sums(radius: int, height: int, width: int):
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2, 3, height, width, generator=generator)
    kernels = torch.randn(2, (2 * radius + 1) ** 2, 2 * height, 2 * width, generator=generator)
    torch.testing.assert_close(apply_kernels(source, kernels), naive(source, kernels), rtol=1e-4, atol=1e-4)


def test_tiles_a_strip_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(1, 3, 20, 20, generator=generator)
    kernels = torch.randn(1, 121, 40, 40, generator=generator)
    whole = apply_kernels(source, kernels)
    monkeypatch.setattr("ovrs.heads.blocks.simfeatup._GATHERED", 1)
    torch.testing.assert_close(apply_kernels(source, kernels), whole)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (20, 12)])
def test_range_kernel_is_the_softmax_over_neighbours(height: int, width: int):
    torch.manual_seed(0)
    block = JointBilateralUpsampler(radius=3)
    guidance = torch.randn(2, 3, height, width)
    projected = block.range_proj(guidance)
    padded = F.pad(projected, [3] * 4, mode="reflect")
    products = [
        (projected * padded[:, :, i : i + height, j : j + width]).sum(dim=1) for i in range(7) for j in range(7)
    ]
    expected = torch.stack(products, dim=1).softmax(dim=1)
    torch.testing.assert_close(block._range(guidance), expected)


@pytest.mark.parametrize("kind", ["jbu_one", "jbu_stack"])
@torch.no_grad()
def test_last_convolution_may_come_first(kind: str):
    torch.manual_seed(0)
    upsampler = SimFeatUp(6, kind)
    features, image = torch.randn(2, 6, 4, 5), torch.randn(2, 3, 64, 80)
    stages = features
    for name in upsampler._blocks:
        guidance = F.adaptive_avg_pool2d(image, tuple(2 * side for side in stages.shape[-2:]))
        stages = naive(stages, getattr(upsampler, name).kernels(guidance))
    expected = stages + 0.1 * upsampler.fixup_proj(stages)
    torch.testing.assert_close(upsampler(features, image), expected, rtol=1e-4, atol=1e-4)


def test_sizes_are_the_released_ones():
    assert sum(parameter.numel() for parameter in SimFeatUp(512).parameters()) == 293_729
    stack = {name.split(".")[0] for name in SimFeatUp(512, "jbu_stack").state_dict()}
    assert stack == {"up1", "up2", "up3", "up4", "fixup_proj"}
