"""Ensembles: probabilities are averaged, members keep their own sizes, windows and templates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from ovrs.engine import build_model, needs_checkpoint
from ovrs.errors import ConfigError
from ovrs.predictor import Predictor

CLASSES = ["roof|house", "road", "tree"]


@pytest.fixture
def members(tiny_cfg: CfgNode, tmp_path: Path) -> list[CfgNode]:
    """A trained head with its checkpoint, and one that needs no training, at another size and with other windows."""
    torch.manual_seed(0)
    trained, free = tiny_cfg.clone(), tiny_cfg.clone()
    torch.save({"model": build_model(trained).state_dict()}, tmp_path / "trained.pth")
    trained.MODEL.WEIGHTS = str(tmp_path / "trained.pth")
    free.MODEL.SEM_SEG_HEAD.NAME, free.MODEL.PRIOR.NAME = "ClipAttentionHead", ""
    free.VOCABULARY.TEMPLATE_SET = "vild"
    free.INPUT.MIN_SIZE_TEST, free.INPUT.ANTIALIAS_TEST = 40, False
    free.TEST.SLIDING_WINDOW.CANVAS, free.TEST.SLIDING_WINDOW.GLOBAL_VIEW = 0, False
    return [trained, free]


@pytest.fixture
def ensemble_cfg(members: list[CfgNode], tiny_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    paths = [tmp_path / "trained.yaml", tmp_path / "free.yaml"]
    for path, cfg in zip(paths, members, strict=True):
        path.write_text(cfg.dump(), encoding="utf-8")
    cfg = tiny_cfg.clone()
    cfg.MODEL.META_ARCHITECTURE = "Ensemble"
    cfg.MODEL.ENSEMBLE.CONFIGS = [str(path) for path in paths]
    cfg.MODEL.ENSEMBLE.CHECKPOINTS = [members[0].MODEL.WEIGHTS, ""]
    cfg.MODEL.ENSEMBLE.SHARES = [3, 1]
    return cfg


@pytest.fixture
def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (60, 52, 3), generator=generator, dtype=torch.uint8)


def test_probabilities_are_the_weighted_mean(ensemble_cfg: CfgNode, members: list[CfgNode], image: torch.Tensor):
    torch.manual_seed(1)  # the free member's random tower
    together = Predictor(ensemble_cfg)(image.numpy(), CLASSES, probabilities=True)
    torch.manual_seed(1)
    build_model(members[0])  # as many random numbers as the ensemble's first member takes
    free = Predictor(members[1])(image.numpy(), CLASSES, probabilities=True)
    trained = Predictor(members[0])(image.numpy(), CLASSES, probabilities=True)
    expected = 0.75 * trained.probabilities + 0.25 * free.probabilities
    torch.testing.assert_close(torch.from_numpy(together.probabilities), torch.from_numpy(expected))
    assert (together.labels == expected.argmax(axis=0)).all()
    assert together.names == ("roof", "road", "tree")


def test_samples_are_segmented_into_their_own_classes(ensemble_cfg: CfgNode, image: torch.Tensor):
    model = build_model(ensemble_cfg).eval()
    sample = {"image": image.permute(2, 0, 1), "height": 60, "width": 52}
    with torch.inference_mode():
        found = model([{**sample, "vocabulary": CLASSES}, {**sample, "vocabulary": CLASSES[:2]}])
    assert [tuple(each["labels"].shape) for each in found] == [(60, 52)] * 2
    assert [len(each["sem_seg"]) for each in found] == [3, 2]


def test_needs_no_checkpoint_of_its_own_and_is_not_trained(ensemble_cfg: CfgNode):
    assert not needs_checkpoint(ensemble_cfg)
    with pytest.raises(ConfigError, match="not trained"):
        build_model(ensemble_cfg).train()([{}])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("MODEL.ENSEMBLE.SHARES", [1.0], "CONFIGS, and as many SHARES"),
        ("MODEL.ENSEMBLE.CONFIGS", [], "CONFIGS, and as many SHARES"),
        ("INPUT.MIN_SIZE_TEST", 640, "set it to 0"),
    ],
)
def test_what_cannot_work_is_refused(ensemble_cfg: CfgNode, key: str, value: object, words: str):
    ensemble_cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=words):
        build_model(ensemble_cfg)


def test_member_that_needs_a_checkpoint_is_named(ensemble_cfg: CfgNode):
    ensemble_cfg.MODEL.ENSEMBLE.CHECKPOINTS = []
    with pytest.raises(ConfigError, match="GSNetHead predicts nothing of use"):
        build_model(ensemble_cfg)
