"""The frozen tower: which weights it has, what it is fed with, and that it leaves the process as it was."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ovrs.config import ConfigError
from ovrs.engine import build_model
from ovrs.inference import WholeImage
from ovrs.ranking import FrozenTower
from ovrs.structures import TowerRequest


def state_of(tower):
    return tower.vlm.state_dict()


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_random_tower_is_the_one_that_training_starts_from(tiny_cfg):
    tiny_cfg.SEED = 7
    torch.manual_seed(tiny_cfg.SEED)  # as the trainer does
    model = build_model(tiny_cfg)
    tower = FrozenTower.from_config(tiny_cfg)
    assert_same_weights(state_of(tower), model.vlm.state_dict())


def test_trained_weights_are_not_looked_at(tiny_cfg):
    expected = FrozenTower.from_config(tiny_cfg)
    tiny_cfg.MODEL.WEIGHTS = "nowhere/model_final.pth"
    assert_same_weights(state_of(FrozenTower.from_config(tiny_cfg)), state_of(expected))


def test_sha256_is_that_of_the_weights_file(tiny_cfg, tmp_path):
    random = FrozenTower.from_config(tiny_cfg)
    path = tmp_path / "my weights" / "clip.safetensors"
    path.parent.mkdir()
    state = {name.removeprefix("clip."): tensor.clone() for name, tensor in state_of(random).items()}
    save_file(state, path)
    tiny_cfg.MODEL.VLM.WEIGHTS, tiny_cfg.MODEL.VLM.ACTIVATION = str(path), "quick_gelu"
    tiny_cfg.SEED = 99
    tower = FrozenTower.from_config(tiny_cfg)
    assert tower.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_same_weights(state_of(tower), state_of(random))


def test_random_towers_are_told_apart_by_their_digest(tiny_cfg):
    first, again = FrozenTower.from_config(tiny_cfg), FrozenTower.from_config(tiny_cfg)
    tiny_cfg.SEED = 1
    other = FrozenTower.from_config(tiny_cfg)
    assert first.sha256 == again.sha256 != other.sha256
    assert len(first.sha256) == 64


def test_random_tower_without_a_seed_is_warned_of(tiny_cfg, caplog):
    FrozenTower.from_config(tiny_cfg)
    assert "SEED negative" not in caplog.text
    tiny_cfg.SEED = -1
    FrozenTower.from_config(tiny_cfg)
    assert "SEED negative" in caplog.text


def test_building_and_running_leave_the_process_as_it_was(tiny_cfg):
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    try:
        state = torch.get_rng_state()
        FrozenTower.from_config(tiny_cfg).dense(torch.zeros(3, 32, 32))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.enabled
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_nothing_of_the_tower_trains(tiny_cfg):
    tower = FrozenTower.from_config(tiny_cfg)
    assert not any(parameter.requires_grad for parameter in tower.vlm.parameters())
    assert not any(module.training for module in tower.vlm.modules())


def test_image_is_normalised_and_squashed(tiny_cfg):
    tower = FrozenTower.from_config(tiny_cfg)
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (tiny_cfg.MODEL.PIXEL_MEAN, tiny_cfg.MODEL.PIXEL_STD))
    square = F.interpolate(((image - mean) / std)[None], size=(32, 32), mode="bilinear", align_corners=False)
    expected = tower.vlm(square, TowerRequest(dense="class_residual")).dense[0]
    torch.testing.assert_close(tower.dense(image), expected)
    assert expected.shape == (16, 4, 4)


def test_tower_for_any_size_gets_a_square_of_384(tiny_cfg):
    tiny_cfg.MODEL.VLM.INPUT_SIZE = 0
    tower = FrozenTower.from_config(tiny_cfg)
    assert tower.dense(torch.zeros(3, 40, 60)).shape == (16, 48, 48)


@pytest.mark.parametrize(("crop", "enlarged"), [(True, (60, 80)), (False, (50, 70))])
def test_padding_is_part_of_what_is_seen(tower, crop, enlarged):
    image = torch.full((3, 25, 35), 255.0)
    found = tower.dense_of_padded(image, (50, 70), WholeImage(10, crop))  # padded to 30 x 40
    seen = F.pad(image, (0, 5, 0, 5))
    assert torch.equal(found.scores, tower.dense(seen))
    assert found.full == enlarged


def test_class_embeddings_are_means_over_templates(tower):
    words = tower.classes(["red", "blue|green"])
    assert words.shape == (2, tower.channels)
    single = F.normalize(tower.vlm.encode_text(["red", "blue", "green"]), dim=1)
    torch.testing.assert_close(words[0], single[0])
    torch.testing.assert_close(words[1], F.normalize(single[1] + single[2], dim=0))


def test_unknown_model_is_a_configuration_error(tiny_cfg):
    tiny_cfg.MODEL.VLM.NAME = "NoSuchVLM"
    with pytest.raises(ConfigError, match="NoSuchVLM"):
        FrozenTower.from_config(tiny_cfg)
