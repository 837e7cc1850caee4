"""tools/export_release.py: a file that says everything about itself, and its card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ovrs.config import load_config
from ovrs.demo import CLASSES
from ovrs.engine import build_model, evaluate, load_weights
from ovrs.errors import WeightsError
from ovrs.predictor import Predictor
from ovrs.zoo import identify
from ovrs.zoo.release import read_release
from ovrs.zoo.state_dict import sha256_of_file


@pytest.fixture
def release(run_tool, tiny_cfg, scenes, tmp_path: Path) -> Path:
    """A released tiny model that was evaluated once."""
    tiny_cfg.DATASETS.TRAIN = (f"{scenes / 'scenes.yaml'}:train",)
    tiny_cfg.DATASETS.TEST = (f"{scenes / 'scenes.yaml'}:val",)
    config = tmp_path / "tiny model.yaml"
    config.write_text(tiny_cfg.dump(), encoding="utf-8")
    model = build_model(tiny_cfg)
    weights = tmp_path / "model_final.pth"
    torch.save({"model": model.state_dict(), "optimizer": {}, "iteration": 2}, weights)
    evaluate(tiny_cfg, model, tmp_path / "scores", sha256_of_file(weights))
    words = ("--name", "tiny-town", "--licence", "CC0-1.0", "--note", "Knows nothing.", "--title", "A tiny model")
    output = run_tool("export_release", config, weights, *words, "--output", tmp_path / "to publish")
    assert str(tmp_path / "to publish" / "tiny-town.safetensors") in output
    return tmp_path / "to publish" / "tiny-town.safetensors"


def test_file_holds_the_same_weights_and_all_facts(release, tmp_path):
    found = read_release(release)
    assert (found.name, found.licence, found.notes) == ("tiny-town", "CC0-1.0", ("Knows nothing.",))
    assert found.source_sha256 == sha256_of_file(tmp_path / "model_final.pth")
    assert CLASSES[1] in found.vocabulary
    (result,) = found.results
    report = json.loads((tmp_path / "scores" / "report.json").read_text())["datasets"]["scenes_val"]
    assert result["figures"] == report["figures"]
    assert result["protocol"] == report["protocol"]


def test_its_configuration_builds_a_model_that_it_fills(release, tmp_path):
    config = tmp_path / "from the release.yaml"
    config.write_text(read_release(release).config, encoding="utf-8")
    model = build_model(load_config(config))
    load_weights(model, release)
    expected = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert identify(release).metadata["version"]


def test_released_file_alone_makes_a_predictor(release, tiny_cfg, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "model_final.pth")
    found, expected = (
        made(image, ["road", "tree"]) for made in (Predictor.from_pretrained(release), Predictor(tiny_cfg))
    )
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_card_has_figures_licence_words_and_sum(release):
    text = (release.parent / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "CC0-1.0"
    assert "# A tiny model" in text
    assert "| scenes_val |" in text
    assert sha256_of_file(release) in text
    assert f"`{CLASSES[1]}`" in text
    assert "- Knows nothing." in text
    assert "Predictor.from_pretrained('tiny-town.safetensors')" in text
    assert "META_ARCHITECTURE" not in text  # what is the default is not repeated
    assert "ROI_BOX_CASCADE_HEAD" not in text
    assert "OUTPUT_DIR" not in text  # nor what is of one machine


def test_weights_of_another_model_are_not_released(run_tool, tiny_cfg, release, tmp_path):
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 2
    other = tmp_path / "other.yaml"
    other.write_text(tiny_cfg.dump(), encoding="utf-8")
    words = ("--name", "wrong", "--licence", "MIT", "--output", tmp_path / "wrong")
    with pytest.raises(SystemExit) as caught:
        run_tool("export_release", other, tmp_path / "model_final.pth", *words)
    assert "belongs to another configuration" in caught.value.code
    assert not (tmp_path / "wrong").exists()


def test_other_files_are_no_releases(tmp_path):
    torch.save({}, tmp_path / "plain.pth")
    with pytest.raises(WeightsError, match="is no release"):
        read_release(tmp_path / "plain.pth")
