"""The cost of every head that is shipped, its towers made tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from tiny_sam3 import tiny_sam3_cfg

from ovrs.config import load_config
from ovrs.errors import ConfigError
from ovrs.heads import head_class, list_heads
from ovrs.measure.analysis import Analysis, analyze
from ovrs.measure.stages import HEAD, PRIOR, TEXT, VLM_IMAGE

W, C, D = 32, 144, 32  # widths of the image tower, the joint space and the prior
TOKENS, CELLS = 1 + 28 * 28, 28 * 28  # of a window of 224
CONFIGS = Path(__file__).parents[2] / "configs"
FREE = sorted(f"training_free/{path.stem}" for path in (CONFIGS / "training_free").glob("[a-z]*.yaml"))
TRAINED = [f"{name}/vitb16_dlrsd" for name in ("cat_seg", "dr_seg", "pi_seg", "rskt_seg")]
TRAINED += ["gsnet/vitb16_landdiscover50k", "hg_rsovsseg/clip_vitl14_globe230k", "dino_cost/dinov3_sat_vitl16_dlrsd"]
CLIP = {
    "embed_dim": C,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 12, "width": W, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 1, "width": 16, "heads": 2},
}
DINO = ["patch_size", 8, "depth", 12, "embed_dim", D, "num_heads", 2]
DINO_ARCHS = {"DinoPrior": "vit_tiny_patch16_224", "Dinov3Prior": "vit_small_patch16_dinov3"}


def tiny(name: str, folder: Path) -> CfgNode:
    """A shipped configuration with towers of random numbers, a few wide."""
    if name == "training_free/sam3":
        return tiny_sam3_cfg(folder)
    arch = folder / "clip.json"
    arch.write_text(json.dumps(CLIP), encoding="utf-8")
    cfg = load_config(name)
    for tower in (cfg.MODEL.VLM, cfg.MODEL.COMPANION):
        if tower.ARCH:
            tower.ARCH, tower.WEIGHTS, tower.ACTIVATION = str(arch), "", ""
    prior = cfg.MODEL.PRIOR
    if prior.NAME:
        prior.ARCH, prior.ARCH_OPTIONS, prior.WEIGHTS = DINO_ARCHS[prior.NAME], list(DINO), ""
    return cfg


def cost(name: str, folder: Path, *changes: object, classes: int = 3) -> Analysis:
    cfg = tiny(name, folder)
    cfg.merge_from_list(list(changes))
    return analyze(cfg, classes, (96, 96))


def test_every_head_of_the_package_is_among_them():
    shipped = {load_config(name).MODEL.SEM_SEG_HEAD.NAME for name in (*TRAINED, *FREE)}
    own = {name for name in list_heads() if SEM_SEG_HEADS_REGISTRY.get(name).__module__.startswith("ovrs.")}
    assert shipped == own


@pytest.mark.parametrize("name", [*TRAINED, *FREE])
def test_head_has_parameters_and_work_of_its_own(name: str, tmp_path: Path):
    found = cost(name, tmp_path)
    assert found.passes > 0
    assert found.macs[TEXT] > 0 < found.macs[HEAD]
    assert found.macs[VLM_IMAGE] + found.macs[PRIOR] > 0
    parts = [count for key, count in found.parameters.items() if key != "model" and not key.startswith("head: ")]
    assert tuple(map(sum, zip(*parts, strict=True))) == found.parameters["model"]
    trains = head_class(tiny(name, tmp_path)).needs_training
    assert (found.parameters["head"].trained > 0) == trains
    assert trains or found.parameters["model"].trained == 0
    assert "\nhead " in found.table()


def test_head_of_clip_costs_a_block_with_three_attentions_and_the_words(tmp_path: Path):
    found = cost("training_free/segearth_ov_plain", tmp_path)
    projections = TOKENS * (3 + 1) * W**2
    attention = 3 * 2 * TOKENS**2 * W
    joint, words = TOKENS * W * C, (CELLS + 1) * C * 3
    assert found.macs[HEAD] == found.passes * (projections + attention + joint + words)
    image = CELLS * 3 * 8**2 * W + 11 * (TOKENS * 12 * W**2 + 2 * TOKENS**2 * W)
    assert found.macs[VLM_IMAGE] == found.passes * image


def test_proxy_costs_one_mixing_for_all_heads_of_a_block(tmp_path: Path):
    found = cost("training_free/proxyclip", tmp_path)
    tokens = 42 * 42  # of a window of 336, in both towers
    values = (1 + tokens) * 3 * W**2 + tokens * W**2
    mixing = tokens**2 * D + tokens**2 * W
    joint = tokens * W * C + tokens * C * 3
    assert found.macs[HEAD] == found.passes * (values + mixing + joint)
    assert found.macs[PRIOR] > 0


def test_sam3_is_counted_as_if_every_word_were_there(tmp_path: Path):
    full = cost("training_free/sam3", tmp_path)
    strict = cost("training_free/sam3", tmp_path, "MODEL.SAM3.PRESENCE", 1.0, "MODEL.SAM3.CONFIDENCE", 1.0)
    assert full.macs == strict.macs
    assert full.parameters["VLM, behind both"].total > 0
    six = cost("training_free/sam3", tmp_path, classes=6)
    assert six.macs[HEAD] == 2 * full.macs[HEAD]


def test_ensemble_says_that_its_members_are_to_be_analysed(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"analyse MODEL\.ENSEMBLE\.CONFIGS one by one"):
        cost("cat_seg/vitb16_dlrsd", tmp_path, "MODEL.META_ARCHITECTURE", "Ensemble")


@pytest.mark.heavy
def test_sam3_has_the_known_size_and_cost():
    """840 million parameters; 2,807 giga-MACs per image, 210 per word, 9.7 for a word's text."""
    found = analyze(load_config("training_free/sam3"), 10, (448, 448))
    assert found.parameters["model"].total == 840_376_374
    assert found.macs[VLM_IMAGE] / 1e9 == pytest.approx(2807, abs=1)
    assert found.macs[HEAD] / 10 / 1e9 == pytest.approx(210, abs=1)
    assert found.macs[TEXT] / 10 / 1e9 == pytest.approx(9.7, abs=0.05)
