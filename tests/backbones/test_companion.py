"""The second, frozen CLIP image tower."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from detectron2.config import CfgNode
from torch import nn

from ovrs.backbones import ClipCompanion, build_towers
from ovrs.errors import ConfigError, WeightsError
from ovrs.structures import TowerRequest, TowerSpec


@pytest.fixture
def clip(tiny_arch: Path) -> nn.Module:
    """The open_clip model that the configuration names, with unusual random weights."""
    clip = open_clip.CLIP(**json.loads(tiny_arch.read_text(encoding="utf-8"))).eval()
    for parameter in clip.parameters():  # biases are zero and norms one at birth, which hides errors
        nn.init.normal_(parameter, std=0.3)
    return clip


@pytest.fixture
def cfg(tiny_cfg: CfgNode, tiny_arch: Path, tmp_path: Path, clip: nn.Module) -> CfgNode:
    """A configuration whose companion reads the weights of ``clip`` from a file of RemoteCLIP's form."""
    path = tmp_path / "Remote CLIP.pt"
    torch.save(clip.state_dict(), path)
    node = tiny_cfg.MODEL.COMPANION
    node.ARCH, node.WEIGHTS, node.ACTIVATION, node.INPUT_SIZE = str(tiny_arch), str(path), "quick_gelu", 48
    return tiny_cfg


@torch.no_grad()
def test_block_outputs_are_open_clips_with_the_weights_of_the_file(cfg: CfgNode, clip: nn.Module):
    companion = ClipCompanion(cfg)
    image = torch.randn(2, 3, 32, 32)
    found = companion(image, TowerRequest((1, 3), "none")).blocks
    expected = clip.visual.forward_intermediates(image, indices=[1, 3])["image_intermediates"]
    assert list(found) == [1, 3]
    for ours, theirs in zip(found.values(), expected, strict=True):
        assert ours.shape == (2, 32, 4, 4)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_images_may_be_larger_than_the_tower_was_trained_on(cfg: CfgNode):
    blocks = ClipCompanion(cfg)(torch.randn(1, 3, 48, 64), TowerRequest((0,), "none")).blocks
    assert blocks[0].shape == (1, 32, 6, 8)


def test_shape_says_what_a_head_needs(cfg: CfgNode):
    assert ClipCompanion(cfg).spec == TowerSpec(width=32, depth=4, patch_size=8, input_size=48, joint_dim=16)


def test_text_tower_is_dropped_and_nothing_trains(cfg: CfgNode):
    companion = ClipCompanion(cfg)
    assert {name.split(".")[0] for name in companion.state_dict()} == {"visual"}
    assert not any(parameter.requires_grad for parameter in companion.parameters())
    blocks = companion(torch.randn(1, 3, 32, 32), TowerRequest((0, 2), "none")).blocks
    assert not any(block.requires_grad for block in blocks.values())


@torch.no_grad()
def test_blocks_behind_the_last_wanted_one_are_not_run(cfg: CfgNode):
    companion = ClipCompanion(cfg)
    seen = []
    for index, block in enumerate(companion.visual.transformer.resblocks):
        block.register_forward_hook(lambda module, inputs, output, index=index: seen.append(index))
    companion(torch.randn(1, 3, 32, 32), TowerRequest((2, 0), "none"))
    assert seen == [0, 1, 2]


def test_block_that_does_not_exist_is_refused(cfg: CfgNode):
    with pytest.raises(ConfigError, match=r"\[4\] of ClipCompanion asked for; a tower of 4 has 0\.\."):
        ClipCompanion(cfg)(torch.randn(1, 3, 32, 32), TowerRequest((1, 4), "none"))


def test_no_architecture_means_no_companion(tiny_cfg: CfgNode):
    assert tiny_cfg.MODEL.COMPANION.ARCH == ""
    assert set(build_towers(tiny_cfg)) == {"vlm", "prior"}


def test_weights_are_not_read_where_a_checkpoint_will_bring_them(cfg: CfgNode):
    Path(cfg.MODEL.COMPANION.WEIGHTS).unlink()
    assert isinstance(build_towers(cfg, load_weights=False)["companion"], ClipCompanion)
    with pytest.raises(WeightsError, match=r"MODEL\.COMPANION\.WEIGHTS.*Remote CLIP\.pt"):
        ClipCompanion(cfg)


def test_random_weights_are_told(cfg: CfgNode, caplog: pytest.LogCaptureFixture):
    cfg.MODEL.COMPANION.WEIGHTS = ""
    ClipCompanion(cfg)
    assert "MODEL.COMPANION.WEIGHTS is empty" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ARCH", "ViT-Q-99", r"MODEL\.COMPANION\.ARCH: open_clip knows no model 'ViT-Q-99'"),
        ("ACTIVATION", "", r"MODEL\.COMPANION\.ACTIVATION"),
        ("ARCH", "ViT-B-32", r"Remote CLIP\.pt: .* Is MODEL\.COMPANION\.ARCH, 'ViT-B-32', the architecture of this"),
    ],
    ids=["unknown", "no-activation", "another"],
)
def test_impossible_value_is_refused_with_its_key(cfg: CfgNode, key: str, value: str, message: str):
    cfg.MODEL.COMPANION[key] = value
    with pytest.raises(WeightsError, match=message):
        ClipCompanion(cfg)
