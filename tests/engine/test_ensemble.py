"""Ensembles: probabilities are averaged, members keep their own sizes, windows and templates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from PIL import Image

from ovrs.engine import build_model, needs_checkpoint
from ovrs.engine.checkpoint import UNTRAINED
from ovrs.errors import ConfigError
from ovrs.predictor import Predictor
from ovrs.scores import enlarge
from ovrs.vocabulary import Vocabulary

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
        ("TEST.REFINE", "pamr", "set it in their configurations"),
        ("MODEL.WEIGHTS", "a.pth", "MODEL.ENSEMBLE.CHECKPOINTS"),
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


def test_thresholds_and_background_are_the_ensembles_alone(
    ensemble_cfg: CfgNode, members: list[CfgNode], image: torch.Tensor, tmp_path: Path
):
    members[0].TEST.THRESHOLD, members[0].TEST.BACKGROUND = 1.0, "road"
    (tmp_path / "trained.yaml").write_text(members[0].dump(), encoding="utf-8")
    ensemble_cfg.TEST.THRESHOLDS, ensemble_cfg.TEST.BACKGROUND = ["strict", 0.9, "lax", 0.0], "house"
    MetadataCatalog.get("strict").class_strings = MetadataCatalog.get("lax").class_strings = CLASSES
    model = build_model(ensemble_cfg).eval()
    vocabulary = model.vocabulary(CLASSES)
    assert [model.rule(vocabulary, dataset=name).threshold for name in ("strict", "lax", "else")] == [0.9, 0.0, 0.0]
    assert model.rule(vocabulary, 0.4, "strict").threshold == 0.4
    sample = {"image": image.permute(2, 0, 1)}
    with torch.inference_mode():
        strict, lax = model([{**sample, "dataset": "strict"}, {**sample, "dataset": "lax"}])
    torch.testing.assert_close(strict["sem_seg"], lax["sem_seg"])
    best, free = lax["sem_seg"].max(dim=0)
    assert torch.equal(lax["labels"], free.to(torch.uint8))
    assert torch.equal(strict["labels"], free.masked_fill(best < 0.9, 0).to(torch.uint8))
    assert (strict["labels"] != lax["labels"]).any()


def test_images_of_a_call_are_given_to_members_together(ensemble_cfg: CfgNode, image: torch.Tensor, monkeypatch):
    model = build_model(ensemble_cfg).eval()
    seen: list[int] = []
    encode = type(model.members[0]).encode
    monkeypatch.setattr(
        type(model.members[0]),
        "encode",
        lambda self, samples, **options: seen.append(len(samples)) or encode(self, samples, **options),
    )
    sample = {"image": image.permute(2, 0, 1)}
    with torch.inference_mode():
        model([{**sample, "vocabulary": words} for words in (CLASSES, CLASSES[:2], CLASSES)])
    assert seen == [2, 2, 1, 1]


def test_configured_classes_are_the_ensembles_own(ensemble_cfg: CfgNode, image: torch.Tensor):
    ensemble_cfg.VOCABULARY.CLASSES, ensemble_cfg.TEST.OUTPUT = CLASSES[:2], "scores"
    with torch.inference_mode():
        (found,) = build_model(ensemble_cfg).eval()([{"image": image.permute(2, 0, 1)}])
    assert found.keys() == {"labels", "scores", "sem_seg"}
    assert len(found["sem_seg"]) == 2


def test_other_checkpoints_make_another_ensemble(ensemble_cfg: CfgNode, members: list[CfgNode], tmp_path: Path):
    first = Predictor(ensemble_cfg).weights_sha256
    assert first == Predictor(ensemble_cfg).weights_sha256
    torch.manual_seed(7)
    members[0].MODEL.WEIGHTS = ""
    torch.save({"model": build_model(members[0]).state_dict()}, tmp_path / "trained.pth")
    assert Predictor(ensemble_cfg).weights_sha256 not in (first, UNTRAINED)


def test_windows_of_rasters_have_the_weighted_mean(ensemble_cfg: CfgNode, image: torch.Tensor):
    predictor = Predictor(ensemble_cfg)
    scorer, model = predictor.window_model(CLASSES, threshold=0.2), predictor.model
    assert (scorer.info.kernel, scorer.info.labels) == (32, ("roof", "road", "tree", "other"))
    windows = image[:32, :32].permute(2, 0, 1)[None]
    with torch.inference_mode():
        found = scorer.score(windows)
        expected = 0.0
        for member, share in zip(model.members, (0.75, 0.25), strict=True):
            vocabulary = Vocabulary(model.vocabulary(CLASSES).synonyms, member.templates)
            rule, class_of = member.rule(vocabulary), member.text(vocabulary).class_of
            logits = member.classify(member.embed(member.normalise(windows)), vocabulary)
            expected = expected + share * rule.probabilities(enlarge(rule.scores(logits)[0], (32, 32)), class_of)
    torch.testing.assert_close(found[0], expected)


def test_rasters_are_mapped(ensemble_cfg: CfgNode, image: torch.Tensor, tmp_path: Path):
    Image.fromarray(image.numpy()).save(tmp_path / "town.png")
    outcome = Predictor(ensemble_cfg).predict_raster(tmp_path / "town.png", CLASSES, tmp_path / "out")
    assert outcome["status"] != "failed"
    assert (tmp_path / "out/town_labels.tif").is_file()
