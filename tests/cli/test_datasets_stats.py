"""ovrs datasets stats: pixels and segments of labels, and how alike class lists are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ovrs.demo import CLASSES


def test_pixels_and_segments_of_a_data_set(ovrs, scenes, tmp_path):
    name = f"{scenes / 'scenes.yaml'}:val"
    text = ovrs("datasets", "stats", name, "--json", tmp_path / "stats.json")
    assert "scenes_val: 3 label files" in text
    found = json.loads((tmp_path / "stats.json").read_text())["scenes_val"]
    maps = [np.asarray(Image.open(path)) for path in sorted((scenes / "labels" / "val").iterdir())]
    pixels = np.bincount(np.concatenate([each.ravel() for each in maps]), minlength=256)
    assert [each["pixels"] for each in found.values()] == pixels[: len(CLASSES)].tolist()
    for word, each in found.items():
        assert word in text
        if each["pixels"]:
            assert each["sizes"] == sorted(each["sizes"])
            assert all(0 <= place <= 1 for place in each["centre"])
            assert each["segments"] >= each["images"]


def test_sample_reads_fewer_files(ovrs, scenes):
    assert "2 label files" in ovrs("datasets", "stats", f"{scenes / 'scenes.yaml'}:train", "--sample", "2")


@pytest.fixture
def tiny_config(tiny_cfg, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_cfg.dump(), encoding="utf-8")
    return path


def test_class_lists_are_compared_without_any_files(ovrs, tiny_config, tmp_path):
    words = ("gsnet_potsdam_5_all", "gsnet_landdiscover50k_40_train")
    options = (
        "--against",
        "gsnet_landdiscover50k_40_train",
        "--config",
        tiny_config,
        "--json",
        tmp_path / "alike.json",
    )
    text = ovrs("datasets", "stats", *words, *options)
    found = json.loads((tmp_path / "alike.json").read_text())
    other, same = (found[word] for word in words)
    assert same["similarity"] == pytest.approx(1.0)
    assert other["similarity"] < 1
    assert other["distance"] == pytest.approx((2 - 2 * other["similarity"]) ** 0.5)
    assert f"similarity {other['similarity']:.4f}" in text
    assert min(other["nearest"].values()) >= other["similarity"]
