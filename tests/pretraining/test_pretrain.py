"""Whole runs of a tiny network: what they learn, leave, survive and refuse."""

from __future__ import annotations

import itertools
import json
import math
import sys

import pytest
import torch
from killed_runs import KillAfter, Killed
from safetensors.torch import load_file
from tiny_recipes import words_of

from ovrs.backbones import build_tower
from ovrs.cli import main
from ovrs.errors import ConfigError, TrainingDiverged, WeightsError
from ovrs.pretraining import Pretrainer
from ovrs.pretraining.dino import DistillationLoss
from ovrs.pretraining.images import find_images
from ovrs.structures import TowerRequest
from ovrs.zoo import identify
from ovrs.zoo.state_dict import read_checkpoint, sha256_of_file


def run(recipe, drawn, folder, resume=False, kill_after=None) -> Pretrainer:
    trainer = Pretrainer(recipe, find_images(drawn), folder, resume)
    if kill_after is None:
        trainer.train()
        return trainer
    trainer.register_hooks([KillAfter(kill_after)])
    with pytest.raises(Killed):
        trainer.train()
    return trainer


def features(tiny_cfg, weights) -> torch.Tensor:
    """Return what a segmenter's prior says of an image."""
    tiny_cfg.MODEL.PRIOR.WEIGHTS = str(weights)
    prior = build_tower("prior", tiny_cfg).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        return prior(torch.randn(1, 3, 48, 48), TowerRequest(blocks=(1,))).dense


def test_prior_gives_the_teachers_features_exactly(drawn, tiny_recipe, tiny_cfg, tmp_path):
    trainer = run(tiny_recipe(), drawn, tmp_path)
    prior = tmp_path / "prior.safetensors"
    image_features = features(tiny_cfg, prior)
    teacher = trainer.teacher._run_blocks.__self__.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        assert torch.equal(teacher(torch.randn(1, 3, 48, 48), TowerRequest()).dense, image_features)
    # A checkpoint has DINO's layout, so that it is taken as it is.
    assert torch.equal(features(tiny_cfg, tmp_path / "model_final.pth"), image_features)
    assert (tmp_path / "prior.safetensors.sha256").read_text() == f"{sha256_of_file(prior)}  prior.safetensors\n"
    found = identify(prior)
    assert found.kind == "tower"
    assert json.loads(found.metadata["recipe"])["EPOCHS"] == 3
    assert identify(tmp_path / "model_final.pth").kind == "tower"


def learned(trainer: Pretrainer) -> tuple[list[float], list[float]]:
    """Train; return loss and teacher's entropy of every step."""
    trainer.train()
    histories = trainer.storage.histories()
    return tuple([value for value, _ in histories[name].values()] for name in ("total_loss", "teacher_entropy"))


LEARNING = {"BATCH_SIZE": 8, "LR": 0.02, "LR_WARMUP_EPOCHS": 5, "DROP_PATH": 0, "CHECKPOINT_EPOCHS": 0}


def test_student_learns_what_a_teacher_that_stays_says_of_one_batch(drawn, tiny_recipe, tmp_path):
    fixed = {"TEACHER_MOMENTUM": 1, "CENTRE_MOMENTUM": 1, "TEACHER_TEMPERATURE_EPOCHS": 0}
    trainer = Pretrainer(tiny_recipe(EPOCHS=80, **LEARNING | {"LR": 0.06}, **fixed), find_images(drawn), tmp_path)
    trainer._loader = itertools.repeat(next(iter(trainer._loader)))
    loss, _ = learned(trainer)
    assert loss[-1] < 0.85 * loss[0]  # what it says of a small crop must suit both large ones, so it stays above 0


def test_student_and_teacher_come_to_agree_on_a_small_set(drawn, tiny_recipe, tmp_path):
    recipe = tiny_recipe(EPOCHS=60, TEACHER_MOMENTUM=0.98, **LEARNING)
    loss, entropy = learned(Pretrainer(recipe, find_images(drawn), tmp_path))
    divergence = [each - least for each, least in zip(loss, entropy, strict=True)]
    assert sum(divergence[-5:]) < 0.6 * sum(divergence[:5])
    assert 0.1 < entropy[-1] < math.log(32) - 0.1  # not by saying the same, or nothing, of everything


def test_killed_and_resumed_run_ends_with_the_same_bits(drawn, tiny_recipe, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(tiny_recipe(), drawn, whole)
    run(tiny_recipe(), drawn, broken, kill_after=3)
    resumed = run(tiny_recipe(), drawn, broken, resume=True)
    assert resumed.start_iter == 2  # an epoch has two steps; the third is done again
    one, other = (read_checkpoint(folder / "model_final.pth") for folder in (whole, broken))
    for name in ("student", "teacher"):
        assert all(torch.equal(one[name][key], other[name][key]) for key in one[name])
    assert torch.equal(one["centre"], other["centre"])
    assert one["centre"].abs().sum() > 0
    assert not torch.equal(one["student"]["backbone.pos_embed"], one["teacher"]["backbone.pos_embed"])


def test_drop_path_is_the_students_alone_and_drawn_by_step(drawn, tiny_recipe, tmp_path):
    trainer = run(tiny_recipe(DROP_PATH=0.5), drawn, tmp_path)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in trainer.student.backbone.blocks]
    assert rates[-1] == 0.5
    assert all(isinstance(block.drop_path1, torch.nn.Identity) for block in trainer.teacher.backbone.blocks)
    again = run(tiny_recipe(DROP_PATH=0.5), drawn, tmp_path / "again")
    assert torch.equal(again.student.head.last_layer.weight, trainer.student.head.last_layer.weight)


def test_last_layer_stays_as_it_is_in_the_first_epoch(drawn, tiny_recipe, tmp_path):
    start = Pretrainer(tiny_recipe(EPOCHS=2), find_images(drawn), tmp_path)
    weight = start.student.head.last_layer.weight.clone()
    first = run(tiny_recipe(EPOCHS=2, FREEZE_LAST_LAYER_EPOCHS=2), drawn, tmp_path)
    assert torch.equal(first.student.head.last_layer.weight, weight)
    second = run(tiny_recipe(EPOCHS=2), drawn, tmp_path)
    assert not torch.equal(second.student.head.last_layer.weight, weight)


def test_nan_stops_the_step_before_anything_changes(drawn, tiny_recipe, tmp_path, monkeypatch):
    trainer = Pretrainer(tiny_recipe(), find_images(drawn), tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.student.state_dict().items()}

    def broken(self, student, *_):
        return student.sum() * float("nan"), student[0, 0]

    monkeypatch.setattr(DistillationLoss, "forward", broken)
    with pytest.raises(TrainingDiverged, match=r"iteration 0: the loss is nan.*\d\.png.*Newest checkpoint: none"):
        trainer.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.student.state_dict().items())
    assert not trainer.loss.centre.any()


def test_run_may_start_from_weights(drawn, tiny_recipe, tmp_path):
    run(tiny_recipe(), drawn, tmp_path / "first")
    prior = tmp_path / "first/prior.safetensors"
    second = Pretrainer(tiny_recipe(WEIGHTS=prior), find_images(drawn), tmp_path / "second")
    expected = load_file(prior)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in second.teacher.backbone.state_dict().items())


def test_other_images_or_sizes_are_refused(drawn, tiny_recipe, tmp_path):
    run(tiny_recipe(), drawn, tmp_path)
    with pytest.raises(WeightsError, match="trained on 8 images, and the 7 that"):
        Pretrainer(tiny_recipe(), find_images(drawn)[1:], tmp_path, resume=True)
    with pytest.raises(ConfigError, match="BATCH_SIZE is 9, but there are 8 images"):
        Pretrainer(tiny_recipe(BATCH_SIZE=9), find_images(drawn), tmp_path)


# ---------------------------------------------------------------------- the command


@pytest.fixture
def ovrs(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["ovrs", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return f"{end.value.code or ''}{capsys.readouterr().out}"

    return call


def test_command_trains_resumes_and_protects_its_folder(drawn, tmp_path, ovrs):
    folder = tmp_path / "a run"
    command = ("pretrain", drawn, "--output", folder)
    words = words_of({"EPOCHS": 1})
    assert "The prior is" in ovrs(*command, *words)
    first = load_file(folder / "prior.safetensors")
    assert "holds a run already" in ovrs(*command, *words)
    assert "had another recipe: LR: 0.0005 → 0.1" in ovrs(*command, *words, "LR", "0.1", "--resume")
    ovrs(*command, *words, "WORKERS", "1", "--resume")
    resumed = load_file(folder / "prior.safetensors")
    assert all(torch.equal(first[name], resumed[name]) for name in first)
    ovrs(*command, *words, "SEED", "1", "--overwrite")
    assert not torch.equal(load_file(folder / "prior.safetensors")["pos_embed"], first["pos_embed"])
    assert "Pre-training" in (folder / "log.txt").read_text()


def test_command_explains_its_keys_and_asks_for_images(ovrs):
    assert "TEACHER_TEMPERATURE_EPOCHS  30" in ovrs("pretrain", "--keys")
    assert "no images given" in ovrs("pretrain")


def test_two_processes_take_the_steps_of_one(drawn, tiny_recipe, tmp_path, ovrs):
    changes = {"EPOCHS": 1, "DROP_PATH": 0, "FREEZE_LAST_LAYER_EPOCHS": 0, "LR": 0.1, "LR_WARMUP_EPOCHS": 0}
    start = Pretrainer(tiny_recipe(**changes), find_images(drawn), tmp_path / "one")
    name = "backbone.patch_embed.proj.weight"
    before = start.student.state_dict()[name].clone()
    start.train()
    ovrs("pretrain", drawn, "--output", tmp_path / "two", "--num-gpus", 2, *words_of(changes))
    assert (tmp_path / "two/prior.safetensors").is_file()
    one, two = (read_checkpoint(tmp_path / folder / "model_final.pth") for folder in ("one", "two"))
    torch.testing.assert_close(two["centre"], one["centre"], rtol=1e-3, atol=1e-5)
    moved = (one["student"][name] - before).abs().mean()
    assert (two["student"][name] - one["student"][name]).abs().mean() < 0.05 * moved
