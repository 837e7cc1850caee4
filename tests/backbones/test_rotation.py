"""Dense features of an image under four quarter turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ovrs.backbones import OpenClipVLM, Tower
from ovrs.errors import ConfigError
from ovrs.structures import ROTATIONS, TowerFeatures, TowerRequest, TowerSpec

STRAIGHT = TowerRequest((0, 2), "class_residual", token=True, last_block=True)
REQUEST = replace(STRAIGHT, rotations=True)
DENSE = TowerRequest(dense="class_residual")
PIXELS = TowerRequest((0, 2), rotations=True)


class PixelTower(Tower):
    """A tower of patch 1 whose features are the pixels: whatever happens to the grid shows."""

    spec = TowerSpec(width=3, depth=3, patch_size=1, input_size=0, joint_dim=3)

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def encode(self, image: Tensor, request: TowerRequest) -> TowerFeatures:
        self.shapes.append(tuple(image.shape))
        return TowerFeatures(image.clone(), {index: image + index for index in request.blocks})


@pytest.fixture
def vlm(tiny_vlm: OpenClipVLM) -> OpenClipVLM:
    """A CLIP for images of any size whose position embedding is strong, so that a turned image looks different."""
    with torch.no_grad():
        tiny_vlm.clip.visual.positional_embedding.normal_()
    return tiny_vlm.eval()


@pytest.mark.parametrize("size", [(6, 6), (4, 7), (9, 2)])
def test_turning_and_turning_back_is_the_identity(size: tuple[int, int]):
    image = torch.randn(2, 3, *size)
    features = PixelTower()(image, PIXELS)
    assert features.rotated.shape == (2, ROTATIONS, 3, *size)
    for turn in range(ROTATIONS):
        assert torch.equal(features.rotated[:, turn], image)
    assert torch.equal(features.dense, image)


@pytest.mark.parametrize("size", [(6, 6), (4, 7)])
def test_blocks_are_those_of_the_image_as_it_is(size: tuple[int, int]):
    image = torch.randn(2, 3, *size)
    features = PixelTower()(image, PIXELS)
    assert {index: block.shape for index, block in features.blocks.items()} == {0: image.shape, 2: image.shape}
    assert torch.equal(features.blocks[0], image)
    assert torch.equal(features.blocks[2], image + 2)


@pytest.mark.parametrize(
    ("size", "shapes"), [((5, 5), [(8, 3, 5, 5)]), ((4, 7), [(4, 3, 4, 7), (4, 3, 7, 4)])], ids=["square", "oblong"]
)
def test_one_pass_per_orientation(size: tuple[int, int], shapes: list[tuple[int, ...]]):
    tower = PixelTower()
    tower(torch.randn(2, 3, *size), PIXELS)
    assert tower.shapes == shapes


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@torch.no_grad()
def test_one_batch_equals_four_single_passes(vlm: OpenClipVLM, size: tuple[int, int]):
    image = torch.randn(2, 3, *size)
    features = vlm(image, REQUEST)
    for turn in range(ROTATIONS):
        # Turned counter-clockwise, and back.
        alone = vlm(torch.rot90(image, turn, (2, 3)), DENSE)
        back = torch.rot90(alone.dense, (4 - turn) % 4, (2, 3))
        torch.testing.assert_close(features.rotated[:, turn], back, rtol=1e-4, atol=1e-5)
    views = features.rotated.unbind(1)
    assert all((a - b).abs().max() > 1e-2 for i, a in enumerate(views) for b in views[:i])

    straight = vlm(image, STRAIGHT)
    assert torch.equal(features.dense, features.rotated[:, 0])
    assert list(features.blocks) == [0, 2]
    for index, block in straight.blocks.items():
        torch.testing.assert_close(features.blocks[index], block, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.token, straight.token, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.last_block.input, straight.last_block.input, rtol=1e-4, atol=1e-5)
    assert features.last_block.grid == straight.last_block.grid


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@torch.no_grad()
def test_turning_the_image_turns_the_features_and_permutes_the_views(vlm: OpenClipVLM, size: tuple[int, int]):
    image = torch.randn(2, 3, *size)
    before = vlm(image, REQUEST).rotated
    after = vlm(image.rot90(1, (2, 3)), REQUEST).rotated
    for turn in range(ROTATIONS):
        expected = before[:, (turn + 1) % ROTATIONS].rot90(1, (2, 3))
        torch.testing.assert_close(after[:, turn], expected, rtol=1e-4, atol=1e-5)


def test_gradients_flow_through_all_four_views(vlm: OpenClipVLM):
    for turn in range(ROTATIONS):
        vlm.zero_grad(set_to_none=True)
        value = vlm.clip.visual.transformer.resblocks[0].attn.v_proj_weight
        value.requires_grad_()
        vlm(torch.randn(1, 3, 32, 32), REQUEST).rotated[:, turn].square().mean().backward()
        assert value.grad.abs().max() > 0


def test_turns_without_a_dense_map_are_refused():
    with pytest.raises(ConfigError, match="rotations turns dense maps"):
        PixelTower()(torch.randn(1, 3, 4, 4), TowerRequest(dense="none", rotations=True))
