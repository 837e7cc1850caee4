import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine.train_loop import HookBase
from killed_runs import KillAfter, Killed
from PIL import Image
from same_state import assert_same

from ovrs.data import resolve_datasets
from ovrs.engine import CheckpointStore, Trainer, TrainingDiverged, evaluate
from ovrs.errors import WeightsError
from ovrs.losses import BinaryCrossEntropy
from ovrs.structures import IGNORE_LABEL


def train(cfg, folder: Path, *, resume: bool = False, kill_after: int | None = None) -> Trainer:
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    trainer = Trainer(cfg, resume=resume)
    if kill_after is None:
        trainer.train()
    else:
        trainer.register_hooks([KillAfter(kill_after)])
        with pytest.raises(Killed):
            trainer.train()
    return trainer


def final_state(folder: Path) -> dict:
    store = CheckpointStore(folder)
    path = store.last()
    assert path.name == "model_final.pth"
    return store.load(path)


def logged_iterations(folder: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.fixture
def _random_network(monkeypatch):
    """Make the loss depend on torch's random numbers, as dropout does."""
    forward = BinaryCrossEntropy.forward
    monkeypatch.setattr(BinaryCrossEntropy, "forward", lambda *args: forward(*args) * (1 + torch.rand(())))


@pytest.mark.usefixtures("_random_network")
def test_a_killed_and_resumed_run_ends_with_the_same_state_bit_for_bit(run_cfg, tmp_path):
    run_cfg.SOLVER.MAX_ITER = 7
    first = train(run_cfg, tmp_path / "straight").model.state_dict()
    for kill_after in (1, 2, 5, 6):
        folder = tmp_path / f"killed after {kill_after}"
        train(run_cfg, folder, kill_after=kill_after)
        resumed = train(run_cfg, folder, resume=True)
        assert resumed.start_iter == kill_after // 2 * 2
        assert_same(final_state(tmp_path / "straight"), final_state(folder))
        assert_same(first, resumed.model.state_dict())


def test_training_changes_what_is_trained_and_nothing_else(run_cfg, tmp_path):
    trainer = Trainer(run_cfg)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed <= trained
    assert {name.split(".")[0] for name in changed} == {"vlm", "head"}
    assert len(changed) > 0.9 * len(trained)


def test_a_random_seed_is_kept_in_the_checkpoint(run_cfg, tmp_path):
    run_cfg.SEED = -1
    train(run_cfg, tmp_path / "killed", kill_after=3)
    train(run_cfg, tmp_path / "killed", resume=True)
    state = final_state(tmp_path / "killed")
    run_cfg.SEED = state["seed"]
    train(run_cfg, tmp_path / "straight")
    assert_same(final_state(tmp_path / "straight"), state)


def test_different_seeds_give_different_weights(run_cfg, tmp_path):
    a = train(run_cfg, tmp_path / "a").model.head.state_dict()
    run_cfg.SEED = 1
    b = train(run_cfg, tmp_path / "b").model.head.state_dict()
    assert not all(torch.equal(a[name], b[name]) for name in a)


def test_the_number_of_workers_does_not_change_the_result(run_cfg, tmp_path):
    train(run_cfg, tmp_path / "none")
    run_cfg.DATALOADER.NUM_WORKERS = 1
    train(run_cfg, tmp_path / "one")
    assert_same(final_state(tmp_path / "none"), final_state(tmp_path / "one"))


def test_metrics_hold_every_line_once_after_a_resume(run_cfg, tmp_path):
    run_cfg.SOLVER.MAX_ITER, run_cfg.SOLVER.CHECKPOINT_PERIOD = 45, 15
    train(run_cfg, tmp_path, kill_after=40)  # written at 19 and 39; the checkpoint is of 30
    assert 39 in logged_iterations(tmp_path)
    with open(tmp_path / "metrics.json", "a", encoding="utf-8") as stream:
        stream.write('{"iteration": 40, "total_l')  # what a kill in the middle of a write leaves
    train(run_cfg, tmp_path, resume=True)
    assert logged_iterations(tmp_path) == [19, 39, 44]


def test_a_new_start_in_a_used_folder_begins_its_metrics_anew(run_cfg, tmp_path):
    train(run_cfg, tmp_path)
    train(run_cfg, tmp_path)
    assert logged_iterations(tmp_path) == [3]


def test_resuming_without_a_checkpoint_starts_at_the_beginning(run_cfg, tmp_path):
    assert train(run_cfg, tmp_path / "new", resume=True).start_iter == 0
    train(run_cfg, tmp_path / "straight")
    assert_same(final_state(tmp_path / "new"), final_state(tmp_path / "straight"))


def test_resuming_a_finished_run_trains_nothing(run_cfg, tmp_path):
    train(run_cfg, tmp_path)
    before = (tmp_path / "model_final.pth").read_bytes()
    assert train(run_cfg, tmp_path, resume=True).start_iter == run_cfg.SOLVER.MAX_ITER
    assert (tmp_path / "model_final.pth").read_bytes() == before


def test_a_rate_changed_on_the_way_has_an_effect(run_cfg, tmp_path):
    run_cfg.SOLVER.LR_SCHEDULER_NAME = "constant"
    train(run_cfg, tmp_path, kill_after=2)
    run_cfg.SOLVER.BASE_LR /= 10
    resumed = train(run_cfg, tmp_path, resume=True)
    assert max(group["lr"] for group in resumed.optimizer.param_groups) == pytest.approx(run_cfg.SOLVER.BASE_LR)


def test_resuming_with_another_architecture_names_the_tensor(run_cfg, tmp_path):
    train(run_cfg, tmp_path, kill_after=2)
    run_cfg.MODEL.GSNET.DECODER_DIMS = [48, 16]
    with pytest.raises(WeightsError, match=r"model_0000001\.pth: .*head\.decoder.*another configuration"):
        train(run_cfg, tmp_path, resume=True)


def test_resuming_with_other_trained_parameters_is_refused(run_cfg, tmp_path):
    train(run_cfg, tmp_path, kill_after=2)
    run_cfg.MODEL.VLM.FINETUNE_IMAGE = "frozen"
    with pytest.raises(WeightsError, match=r"model_0000001\.pth: its optimizer state does not fit"):
        train(run_cfg, tmp_path, resume=True)


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before_and_the_end_is_the_same(run_cfg, tmp_path, caplog):
    run_cfg.SOLVER.MAX_ITER = 5
    train(run_cfg, tmp_path / "straight")
    train(run_cfg, tmp_path / "killed", kill_after=4)
    newest = tmp_path / "killed" / "model_0000003.pth"
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = train(run_cfg, tmp_path / "killed", resume=True)
    assert resumed.start_iter == 2
    assert "model_0000003.pth cannot be read" in caplog.text
    assert "Going on from the one before it" in caplog.text
    assert_same(final_state(tmp_path / "straight"), final_state(tmp_path / "killed"))


def test_so_many_checkpoints_are_kept_and_the_best(run_cfg, tmp_path, monkeypatch):
    run_cfg.SOLVER.MAX_ITER, run_cfg.SOLVER.CHECKPOINT_PERIOD, run_cfg.SOLVER.CHECKPOINT_KEEP = 5, 1, 2
    run_cfg.SOLVER.CHECKPOINT_BEST, run_cfg.TEST.EVAL_PERIOD = "mIoU", 1
    figures = iter([1.0, 3.0, 2.0, 3.0])

    class Figures:
        def average(self):
            self.miou = next(figures, 0.0)
            return {"mIoU": self.miou}

        def results(self):
            return {"average/mIoU": self.miou}

    monkeypatch.setattr("ovrs.engine.trainer.evaluate", lambda *args, **kwargs: Figures())
    train(run_cfg, tmp_path, kill_after=3)
    train(run_cfg, tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000002.pth",
        "model_0000003.pth",
        "model_best.pth",
        "model_final.pth",
    ]
    best = CheckpointStore(tmp_path).load(tmp_path / "model_best.pth")
    assert (best["iteration"], best["best"]) == (2, 3.0)


def test_starting_weights_are_loaded(run_cfg, tmp_path):
    train(run_cfg, tmp_path / "first")
    run_cfg.MODEL.WEIGHTS = str(tmp_path / "first" / "model_final.pth")
    model = Trainer(run_cfg).model
    assert_same(dict(model.state_dict()), dict(final_state(tmp_path / "first")["model"]))


def infinite_loss(logits, labels, labelled):
    return logits.sum() * float("nan")


def infinite_gradient(logits, labels, labelled):
    return (logits * 0).sqrt().sum()  # 0, but the root's slope at 0 is not finite


@pytest.mark.parametrize(
    ("criterion", "quantity"), [(infinite_loss, "loss"), (infinite_gradient, "norm of the gradient")]
)
def test_divergence_names_what_it_can_and_updates_nothing(run_cfg, tmp_path, criterion, quantity):
    run_cfg.OUTPUT_DIR = str(tmp_path)
    trainer = Trainer(run_cfg)

    class Diverge(HookBase):
        def before_step(self) -> None:
            if self.trainer.iter == 3:
                self.trainer.model.criterion.forward = criterion

    trainer.register_hooks([Diverge()])
    with pytest.raises(TrainingDiverged) as caught:
        trainer.train()
    message = str(caught.value)
    assert message.startswith(f"iteration 3: the {quantity} is nan; nothing was updated.")
    assert message.count(".png") == run_cfg.SOLVER.IMS_PER_BATCH
    assert str(tmp_path / "model_0000001.pth") in message
    assert all(tensor.isfinite().all() for tensor in trainer.model.state_dict().values())
    assert trainer.store.last().name == "model_0000001.pth"


def test_training_goes_on_after_an_evaluation_as_if_there_was_none(run_cfg, tmp_path):
    run_cfg.SOLVER.MAX_ITER = 5
    train(run_cfg, tmp_path / "without")
    run_cfg.TEST.EVAL_PERIOD = 2
    train(run_cfg, tmp_path / "with")
    assert sorted(path.name for path in (tmp_path / "with").glob("evaluation_*")) == [
        "evaluation_0000002",
        "evaluation_0000004",
    ]
    assert_same(final_state(tmp_path / "without"), final_state(tmp_path / "with"))
    lines = (tmp_path / "with" / "metrics.json").read_text()
    assert "average/mIoU" in lines


def test_evaluation_during_training_may_have_data_sets_of_its_own(run_cfg, scenes, tmp_path):
    run_cfg.SOLVER.MAX_ITER, run_cfg.TEST.EVAL_PERIOD = 2, 1
    run_cfg.DATASETS.VAL = (f"{scenes / 'scenes.yaml'}:train",)
    trainer = train(run_cfg, tmp_path)
    report = json.loads((tmp_path / "evaluation_0000001" / "report.json").read_text())
    assert list(report["datasets"]) == resolve_datasets(run_cfg.DATASETS.VAL)
    assert list(trainer.cfg.DATASETS.TEST) == list(run_cfg.DATASETS.TEST) != list(run_cfg.DATASETS.VAL)


def test_a_run_killed_during_an_evaluation_repeats_it(run_cfg, tmp_path, monkeypatch):
    run_cfg.TEST.EVAL_PERIOD = 2
    with monkeypatch.context() as patch:
        patch.setattr("ovrs.engine.trainer.evaluate", lambda *args, **kwargs: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(run_cfg, tmp_path)
    train(run_cfg, tmp_path, resume=True)
    assert (tmp_path / "evaluation_0000002" / "report.json").is_file()


def test_a_tiny_model_learns_the_scenes_it_is_shown(run_cfg, scenes, tmp_path):
    """Loss falls clearly, and mIoU on the training images is many times that of the best constant answer."""
    model, solver = run_cfg.MODEL, run_cfg.SOLVER
    model.VLM.FINETUNE_IMAGE = model.VLM.FINETUNE_TEXT = "all"
    model.PRIOR.FINETUNE = "full"
    model.GSNET.FUSION, model.GSNET.POOLING_TRAIN = "concatenation", 1  # learns fastest without pre-trained towers
    model.LOSS.IGNORE_MODE = "mask"
    solver.MAX_ITER, solver.BASE_LR, solver.VLM_MULTIPLIER, solver.IMS_PER_BATCH = 160, 3e-3, 1.0, 4
    solver.CLIP_GRADIENTS.CLIP_VALUE, solver.CHECKPOINT_PERIOD = 1.0, 0
    run_cfg.VOCABULARY.SYNONYMS = "first"  # to a random text tower, synonyms have nothing in common
    run_cfg.INPUT.COLOR_AUG_SSD = False
    run_cfg.DATASETS.TEST = (f"{scenes / 'scenes.yaml'}:train",)
    run_cfg.TEST.SLIDING_WINDOW.CANVAS = 64
    trainer = train(run_cfg, tmp_path)

    losses = [json.loads(line)["total_loss"] for line in (tmp_path / "metrics.json").read_text().splitlines()]
    figures = evaluate(run_cfg, trainer.model, tmp_path, None).results()
    truth = np.stack([np.asarray(Image.open(path)) for path in (scenes / "labels" / "train").glob("*.png")])
    counts = np.unique(truth[truth != IGNORE_LABEL], return_counts=True)[1]
    constant = 100 * counts.max() / counts.sum() / len(counts)
    assert losses[-1] < 0.75 * losses[0]
    assert figures["average/mIoU"] > 5 * constant
