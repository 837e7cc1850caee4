"""SAM 3 behind the contract of every segmenter: sets of images, many vocabularies, windows, thresholds, a predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from tiny_sam3 import spread, tiny_sam3_cfg

from ovrs import Predictor
from ovrs.errors import ConfigError
from ovrs.segmenter import OpenVocabSegmenter

CLASSES = ["background", "road|street", "tree"]


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    return tiny_sam3_cfg(tmp_path, "MODEL.SAM3.CONFIDENCE", "0.2", "TEST.OUTPUT", "scores")


@pytest.fixture
def predictor(cfg: CfgNode) -> Predictor:
    predictor = Predictor(cfg)
    spread(predictor.model.vlm)
    return predictor


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


def count_calls(module: torch.nn.Module) -> list[int]:
    """The batch size of every call of a module from now on."""
    calls: list[int] = []
    module.register_forward_hook(lambda module, given, output: calls.append(1))
    return calls


def test_image_tower_runs_once_per_image_and_text_tower_once_per_vocabulary(predictor: Predictor, image: np.ndarray):
    tower, text = (count_calls(getattr(predictor.model.vlm.model, name)) for name in ("vision_encoder", "text_encoder"))
    predictor.set_image(image)
    first = predictor.predict(CLASSES, probabilities=True)
    again = predictor.predict(CLASSES, probabilities=True)
    predictor.predict(["water", "soil"])
    assert (len(tower), len(text)) == (1, 2)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    direct = predictor(image, CLASSES, probabilities=True)
    np.testing.assert_array_equal(first.probabilities, direct.probabilities)
    assert first.probabilities.shape == (3, 50, 70)
    assert (len(tower), len(text)) == (2, 2)


def test_words_do_not_compete(predictor: Predictor, image: np.ndarray):
    predictor.set_image(image)
    three = predictor.predict(CLASSES, probabilities=True).probabilities
    two = predictor.predict(CLASSES[1:], probabilities=True).probabilities
    np.testing.assert_allclose(three[1:], two, atol=1e-5)
    street = predictor.predict(["street", "tree"], probabilities=True).probabilities[0]
    road = predictor.predict(["road", "tree"], probabilities=True).probabilities[0]
    np.testing.assert_allclose(three[1], np.maximum(street, road), atol=1e-5)
    assert np.abs(street - road).max() > 1e-3


def test_weak_pixels_become_the_prompt_called_background_or_other(predictor: Predictor, image: np.ndarray):
    predictor.set_image(image)
    free = predictor.predict(CLASSES, threshold=0.0, probabilities=True)
    threshold = float(np.median(free.scores))
    found = predictor.predict(CLASSES, threshold=threshold)
    assert found.names == ("background", "road", "tree")
    np.testing.assert_array_equal(found.labels, np.where(free.scores < threshold, 0, free.labels))
    assert (found.labels != free.labels).any()
    assert predictor.predict(["road", "tree"]).names == ("road", "tree", "other")


def test_single_class_is_a_concept_of_its_own(predictor: Predictor, image: np.ndarray):
    predictor.set_image(image)
    alone = predictor.predict(["tree"], probabilities=True)
    beside = predictor.predict(CLASSES, probabilities=True)
    np.testing.assert_allclose(alone.probabilities[0], beside.probabilities[2], atol=1e-5)
    np.testing.assert_array_equal(alone.labels, (alone.probabilities[0] < 0.5).astype(np.uint8))


def test_windows_side_by_side_are_images_of_their_own(cfg: CfgNode, predictor: Predictor, image: np.ndarray):
    window = cfg.TEST.SLIDING_WINDOW
    window.ENABLED, window.KERNEL = True, 25
    windows = Predictor(cfg)
    spread(windows.model.vlm)
    found = windows(np.tile(image[:25, :25], (2, 2, 1)), CLASSES, probabilities=True).probabilities
    alone = predictor(image[:25, :25], CLASSES, probabilities=True).probabilities
    np.testing.assert_allclose(found, np.tile(alone, (1, 2, 2)), atol=1e-5)


def test_windows_of_rasters_are_scored_as_images(cfg: CfgNode, image: np.ndarray):
    cfg.INPUT.CROP.SIZE = [48, 48]
    predictor = Predictor(cfg)
    spread(predictor.model.vlm)
    scorer = predictor.window_model(CLASSES)
    assert (scorer.info.kernel, scorer.info.cell, scorer.info.class_of) == (48, 1, (0, 1, 1, 2))
    with torch.inference_mode():
        rows = scorer.score(torch.from_numpy(image[:48, :48]).permute(2, 0, 1)[None])[0]
        found = scorer.info.rule.probabilities(rows, torch.tensor(scorer.info.class_of)).numpy()
    np.testing.assert_allclose(found, predictor(image[:48, :48], CLASSES, probabilities=True).probabilities, atol=1e-6)


def test_thresholds_of_a_data_set_hold_for_its_images(cfg: CfgNode):
    model = OpenVocabSegmenter(cfg)
    vocabulary = model.vocabulary(["road", "clutter"])
    assert model.rule(vocabulary, dataset="segearth_potsdam_6_val").threshold == 0.1
    assert model.rule(vocabulary, dataset="segearth_potsdam_6_val").below == 1
    assert model.rule(vocabulary, dataset="segearth_loveda_7_val").threshold == 0.5
    assert model.rule(vocabulary).threshold == 0.3


@torch.inference_mode()
def test_bf16_stays_close_to_fp32(cfg: CfgNode, image: np.ndarray):
    results = []
    for precision in ("fp32", "bf16"):
        cfg.MODEL.PRECISION.TOWERS = cfg.MODEL.PRECISION.HEAD = precision
        model = OpenVocabSegmenter(cfg).eval()
        spread(model.vlm, 0.1)
        sample = {"image": torch.from_numpy(image).permute(2, 0, 1), "vocabulary": CLASSES}
        results.append(model([sample])[0]["sem_seg"])
    exact, rounded = results
    assert 0 < (rounded - exact).abs().mean() < 0.02


def test_head_without_its_tower_says_which_key(cfg: CfgNode, tiny_arch: Path):
    cfg.MODEL.VLM.NAME, cfg.MODEL.VLM.ARCH = "OpenClipVLM", str(tiny_arch)
    with pytest.raises(ConfigError, match=r"set MODEL\.VLM\.NAME to 'Sam3VLM'"):
        Predictor(cfg)(np.zeros((32, 32, 3), np.uint8), CLASSES)
