"""Training on two data sets of different vocabularies, from the configuration to the report."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from same_state import assert_same

from ovrs.data import build_train_loader
from ovrs.demo import write_scenes
from ovrs.engine import Trainer, evaluate

# What the drawn scenes hold, in other words: "WATER" and "road" are in both vocabularies.
SECOND = {"road": [1], "WATER": [4], "vegetation": [3, 7], "built-up": [0, 2], "open ground": [5, 6]}


@pytest.fixture
def two_sets(run_cfg, tmp_path):
    """The configuration of a run on two sets, three and four images of 64 pixels."""
    folders = [write_scenes(tmp_path / name, train=n, val=1, size=64, seed=n) for name, n in (("a", 3), ("b", 4))]
    card = {
        "name": "second",
        "classes": list(SECOND),
        "labels": {"ids": {value: name for name, values in SECOND.items() for value in values}},
        "splits": {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in ("train", "val")},
    }
    second = folders[1] / "second.yaml"
    second.write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    cards = (folders[0] / "scenes.yaml", second)
    run_cfg.DATASETS.TRAIN = tuple(f"{card}:train" for card in cards)
    run_cfg.DATASETS.TEST = tuple(f"{card}:val" for card in cards)
    run_cfg.SOLVER.IMS_PER_BATCH, run_cfg.SOLVER.LR_SCHEDULER_NAME = 4, "constant"  # a shorter run is a first part
    run_cfg.MODEL.GSNET.PAD_CLASSES_TO = 16
    return run_cfg


def train(cfg, folder: Path, **solver: int) -> Trainer:
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    cfg.SOLVER.merge_from_list([item for pair in solver.items() for item in pair])
    trainer = Trainer(cfg, resume=True)
    trainer.train()
    return trainer


@pytest.mark.parametrize("mode", ["own", "merged"])
def test_two_vocabularies_train_resume_exactly_and_are_scored_each_by_its_own(two_sets, tmp_path, mode):
    two_sets.DATASETS.TRAIN_VOCABULARY = mode
    two_sets.DATASETS.TRAIN_WEIGHTS = [2, 1]
    straight = train(two_sets, tmp_path / "straight", MAX_ITER=4)
    train(two_sets, tmp_path / "resumed", MAX_ITER=2)
    resumed = train(two_sets, tmp_path / "resumed", MAX_ITER=4)
    assert resumed.start_iter == 2
    assert_same(dict(straight.model.state_dict()), dict(resumed.model.state_dict()))

    report = json.loads(evaluate(two_sets, straight.model, tmp_path, None).to_json())
    classes = {name: len(entry["classes"]) for name, entry in report["datasets"].items()}
    assert classes == {"scenes_val": 8, "second_val": 5}


def test_modes_differ_in_the_classes_that_a_batch_meets(two_sets):
    trainer = Trainer(two_sets)
    met = {}
    for mode in ("own", "merged"):
        two_sets.DATASETS.TRAIN_VOCABULARY = mode
        seen = []
        handle = trainer.model.head.register_forward_hook(
            lambda head, given, logits, seen=seen: seen.append(logits.shape)
        )
        trainer.model(next(iter(build_train_loader(two_sets))))
        handle.remove()
        met[mode] = sorted((shape[1], shape[0]) for shape in seen)
    (few, many), (union,) = met["own"], met["merged"]
    assert (few[0], many[0], few[1] + many[1]) == (5, 8, 4)
    assert union == (11, 4)


def test_ignored_classes_get_nothing_from_images_whose_set_does_not_label_them(two_sets):
    """A batch of the second set alone moves the logits of its five classes, and with "negative" those of all."""
    two_sets.DATASETS.TRAIN_VOCABULARY = "merged"
    trainer = Trainer(two_sets)
    moved = {}
    for mode in ("negative", "ignored"):
        two_sets.DATASETS.UNLABELLED_CLASSES = mode
        batches = iter(build_train_loader(two_sets))
        batch = [sample for _ in range(4) for sample in next(batches) if sample["dataset"] == "second_train"]
        logits = []
        handle = trainer.model.head.register_forward_hook(lambda head, given, output, kept=logits: kept.append(output))
        loss = trainer.model(batch)["loss_sem_seg"]
        handle.remove()
        gradient = torch.autograd.grad(loss, logits[0])[0]
        moved[mode] = (gradient.abs().amax(dim=(0, 2, 3)) > 0).nonzero().flatten().tolist()
    assert moved["negative"] == list(range(11))
    assert moved["ignored"] == [1, 4, 8, 9, 10]
