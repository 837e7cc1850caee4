"""Checkpoints that leave out what never trained, and what is read from them."""

import pytest
import torch
from same_state import assert_same

from ovrs.backbones import build_vlm
from ovrs.engine import Trainer, build_model, load_weights
from ovrs.engine.slim import read_weights
from ovrs.errors import WeightsError


@pytest.fixture
def cfg(run_cfg, tmp_path):
    """The tiny run with a CLIP that has weights of its own, partly trained, and a random frozen prior."""
    path = tmp_path / "clip.pth"
    torch.save(build_vlm(run_cfg).clip.state_dict(), path)
    run_cfg.MODEL.VLM.WEIGHTS, run_cfg.MODEL.VLM.ACTIVATION = str(path), "quick_gelu"
    run_cfg.SOLVER.MAX_ITER, run_cfg.SOLVER.CHECKPOINT_PERIOD, run_cfg.DATASETS.TEST = 4, 2, ()
    return run_cfg


@pytest.fixture
def trainer(cfg):
    trainer = Trainer(cfg)
    trainer.train()
    return trainer


def stored(trainer, name="model_final.pth") -> dict:
    return trainer.store.load(trainer.store.folder / name)


def test_what_never_trained_is_named_and_not_stored(cfg, trainer):
    content = stored(trainer)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    state = trainer.model.state_dict()
    assert {name for name in state if name.startswith("vlm.")} & content["model"].keys() == {
        name for name in trained if name.startswith("vlm.")
    }
    # The prior is random: nothing could bring it back.
    assert {name for name in state if not name.startswith("vlm.")} <= content["model"].keys()
    assert list(content["frozen"]) == ["vlm"]
    assert content["frozen"]["vlm"]["config"]["WEIGHTS"] == cfg.MODEL.VLM.WEIGHTS


def test_a_slim_checkpoint_is_read_as_the_whole(cfg, trainer):
    path = trainer.store.last()
    assert_same(read_weights(path), dict(trainer.model.state_dict()))
    cfg.MODEL.WEIGHTS = str(path)
    model = build_model(cfg)
    load_weights(model, path)
    assert_same(dict(model.state_dict()), dict(trainer.model.state_dict()))


def test_a_slim_run_resumes_exactly(cfg, trainer, tmp_path):
    folder = trainer.store.folder
    end = dict(trainer.model.state_dict())
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    resumed = Trainer(cfg, resume=True)
    assert resumed.start_iter == 2
    resumed.train()
    assert_same(dict(resumed.model.state_dict()), end)
    assert_same(stored(resumed), stored(trainer))


def test_a_full_checkpoint_holds_everything(cfg):
    cfg.SOLVER.CHECKPOINT_FULL = True
    trainer = Trainer(cfg)
    trainer.train()
    content = stored(trainer)
    assert content["model"].keys() == trainer.model.state_dict().keys()
    assert content["frozen"] == {}


def test_a_run_that_starts_from_a_whole_model_writes_everything(cfg, trainer, tmp_path):
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = str(trainer.store.last()), str(tmp_path / "further")
    further = Trainer(cfg)
    further.train()
    assert stored(further)["model"].keys() == further.model.state_dict().keys()


def test_other_frozen_weights_than_those_of_the_run_are_refused(cfg, trainer, tmp_path):
    clip = torch.load(cfg.MODEL.VLM.WEIGHTS, weights_only=True)
    clip["visual.proj"] = clip["visual.proj"] + 1
    torch.save(clip, cfg.MODEL.VLM.WEIGHTS)
    with pytest.raises(WeightsError, match=r"model_final\.pth was trained with another vlm than .*clip\.pth"):
        load_weights(build_model(cfg), trainer.store.last())
    with pytest.raises(WeightsError, match="was trained with another vlm"):
        Trainer(cfg, resume=True)


def test_another_file_of_frozen_weights_is_refused_by_name(cfg, trainer, tmp_path):
    other = tmp_path / "other.pth"
    other.write_bytes((tmp_path / "clip.pth").read_bytes())
    cfg.MODEL.VLM.WEIGHTS = str(other)
    with pytest.raises(WeightsError, match=r"trained with the vlm '.*clip\.pth', not '.*other\.pth'"):
        Trainer(cfg, resume=True)
