"""Post-processors, thresholds by data set and background classes in the whole model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

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
