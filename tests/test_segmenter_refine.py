"""Post-processors, thresholds by data set and background classes in the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ovrs import Predictor
from ovrs.errors import ConfigError
from ovrs.segmenter import OpenVocabSegmenter

CLASSES = ["roof|house", "ground|background", "tree"]


def run(cfg: CfgNode, count: int = 3, **samples: Any) -> list[Any]:
    torch.manual_seed(0)
    model = OpenVocabSegmenter(cfg).eval()
    generator = torch.Generator().manual_seed(5)
    images = [torch.randint(0, 256, (3, 32, 40), generator=generator, dtype=torch.uint8) for _ in range(count)]
    with torch.inference_mode():
        return model([{"image": image, "vocabulary": CLASSES, **samples} for image in images])


@pytest.mark.parametrize("head", ["GSNetHead", "ClipAttentionHead"])
@pytest.mark.parametrize("windows", [True, False])
@pytest.mark.parametrize("refiner", ["coninfer", "pamr"])
def test_refines_scores_of_trained_and_of_free_heads(tiny_cfg: CfgNode, head: str, windows: bool, refiner: str):
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME, tiny_cfg.TEST.OUTPUT = head, "scores"
    tiny_cfg.TEST.SLIDING_WINDOW.ENABLED = windows
    plain = run(tiny_cfg)
    tiny_cfg.TEST.REFINE, tiny_cfg.MODEL.PAMR.DILATIONS = refiner, [1, 2]
    refined = run(tiny_cfg)
    for before, after in zip(plain, refined, strict=True):
        assert after["labels"].shape == (32, 40)
        assert after["sem_seg"].shape == (3, 32, 40)
        assert 0 <= after["sem_seg"].min() <= after["sem_seg"].max() <= 1 + 1e-6
        assert (after["sem_seg"] - before["sem_seg"]).abs().max() > 1e-4
    again = run(tiny_cfg)
    assert all(torch.equal(a["sem_seg"], b["sem_seg"]) for a, b in zip(refined, again, strict=True))


def test_coninfer_depends_on_the_batch_and_says_so(tiny_cfg: CfgNode):
    tiny_cfg.TEST.REFINE, tiny_cfg.TEST.OUTPUT = "coninfer", "scores"
    together, alone = run(tiny_cfg, 3)[0]["sem_seg"], run(tiny_cfg, 1)[0]["sem_seg"]
    assert (together - alone).abs().max() > 1e-6


def test_coninfer_needs_a_tower_of_one_input_size(tiny_cfg: CfgNode):
    tiny_cfg.TEST.REFINE, tiny_cfg.MODEL.PRIOR.INPUT_SIZE = "coninfer", 0
    with pytest.raises(ConfigError, match=r"MODEL.PRIOR.INPUT_SIZE"):
        OpenVocabSegmenter(tiny_cfg)


def test_unknown_refiner_is_refused(tiny_cfg: CfgNode):
    tiny_cfg.TEST.REFINE = "coninfr"
    with pytest.raises(ConfigError, match=r"TEST.REFINE .*coninfer"):
        OpenVocabSegmenter(tiny_cfg)


def test_threshold_belongs_to_a_data_set_and_background_to_one_of_its_words(tiny_cfg: CfgNode):
    MetadataCatalog.get("strict_val").class_strings = CLASSES
    tiny_cfg.TEST.THRESHOLDS = ["strict_val", 0.999]
    tiny_cfg.TEST.BACKGROUND = "clutter|background"
    assert (run(tiny_cfg, 1, dataset="strict_val")[0]["labels"] == 1).all()
    assert not (run(tiny_cfg, 1)[0]["labels"] == 1).all()


@pytest.mark.parametrize("values", [["a"], [0.3, "a"], ["a", "b"]])
def test_thresholds_are_pairs(tiny_cfg: CfgNode, values: list[Any]):
    tiny_cfg.TEST.THRESHOLDS = values
    with pytest.raises(ConfigError, match=r"TEST.THRESHOLDS"):
        OpenVocabSegmenter(tiny_cfg)


# ---------------------------------------------------------------------- maps of rasters


@pytest.fixture
def refined(trained: Path) -> Predictor:
    overrides = ["TEST.REFINE", "pamr", "MODEL.PAMR.DILATIONS", "[1, 2]", "TEST.SLIDING_WINDOW.ENABLED", "False"]
    return Predictor.from_pretrained(trained, overrides)


def test_windows_of_rasters_are_refined_as_images(refined: Predictor):
    scorer = refined.window_model(CLASSES)
    side = scorer.info.kernel
    assert scorer.info.cell == 1
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    with torch.inference_mode():
        scores = scorer.score(torch.from_numpy(image).permute(2, 0, 1)[None])[0]
    found = scorer.info.rule.probabilities(scores).numpy()
    np.testing.assert_allclose(found, refined(image, CLASSES, probabilities=True).probabilities, atol=1e-6)
    assert scorer.info.identity["refine"] == "pamr"


def test_refined_map_of_a_cut_agrees_with_the_whole(refined: Predictor, tmp_path: Path):
    window = refined.window_model(CLASSES).info.kernel
    side, margin = 3 * window, window
    picture = np.random.default_rng(0).integers(0, 256, (3, side, side), dtype=np.uint8)
    shift, maps = 5, []
    for name, cut in (("whole", 0), ("cut", shift)):
        path = tmp_path / f"{name}.tif"
        transform = Affine(1, 0, 1000 + cut, 0, -1, 2000 - cut)
        kind = {"driver": "GTiff", "crs": "EPSG:25832", "transform": transform, "count": 3, "dtype": "uint8"}
        with rasterio.open(path, "w", height=side - cut, width=side - cut, **kind) as file:
            file.write(picture[:, cut:, cut:])
        refined.predict_raster(path, CLASSES, tmp_path / "maps", scores=True)
        with rasterio.open(tmp_path / f"maps/{name}_scores.tif") as file:
            maps.append(file.read())
    whole, cut = maps[0][:, shift:, shift:], maps[1]
    inside = (..., slice(margin, -margin), slice(margin, -margin))
    np.testing.assert_array_equal(whole[inside], cut[inside])


def test_refiner_of_many_images_is_refused_for_maps(trained: Path):
    overrides = ["TEST.REFINE", "coninfer", "MODEL.PRIOR.INPUT_SIZE", "32"]
    with pytest.raises(ConfigError, match=r"TEST.REFINE .*share a pass.*'pamr'"):
        Predictor.from_pretrained(trained, overrides).window_model(CLASSES)
