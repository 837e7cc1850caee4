"""Which parameters no loss depends on, as configured."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode

from ovrs.config import load_config
from ovrs.engine import build_model
from ovrs.engine.distributed import unread_parameters
from ovrs.segmenter import OpenVocabSegmenter

VALUE_ONLY = "vlm.clip.visual.transformer.resblocks.{}.attn.q_proj_weight"


def found(model: OpenVocabSegmenter) -> set[str]:
    return unread_parameters(model, 32)


def test_search_leaves_model_and_random_numbers_as_they_were(tiny_cfg: CfgNode):
    model = OpenVocabSegmenter(tiny_cfg).eval()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert found(model) == {VALUE_ONLY.format(3)}
    assert torch.equal(torch.rand(3), expected)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("keys", "unread"),
    [
        ({"VLM.FINETUNE_IMAGE": "frozen"}, set()),
        (
            {"GSNET.NUM_LAYERS": 0},
            {"appearance.bias", "appearance.weight", "text_guidance.bias", "text_guidance.weight"},
        ),
        ({"GSNET.CLASS_ATTENTION": "full"}, set()),
        ({"GSNET.CLASS_ATTENTION": "full", "GSNET.PAD_CLASSES_TO": 2}, set()),  # as many classes: no padding left
        (
            {"GSNET.CLASS_ATTENTION": "full", "GSNET.PAD_CLASSES_TO": 0},
            {"layers.0.classes.padding_tokens", "layers.0.classes.padding_guidance"},
        ),
    ],
)
def test_options_that_switch_parts_off_are_seen(tiny_cfg: CfgNode, keys: dict, unread: set):
    for key, value in keys.items():
        group, name = key.split(".")
        tiny_cfg.MODEL[group][name] = value
    names = found(OpenVocabSegmenter(tiny_cfg)) - {VALUE_ONLY.format(3)}
    assert names == {f"head.aggregator.{name}" for name in unread}


@pytest.mark.parametrize(
    ("name", "keys", "unread"),
    [
        ("hg_rsovsseg", {}, {"head.attention.0.mix.bias", "head.attention.1.mix.bias"}),
        ("rskt_seg", {}, set()),
        ("dr_seg", {}, set()),
        ("dr_seg", {"DR_SEG.PDGR.EDGE_WEIGHT": "affinity"}, {"edge", "receiver", "sender"}),
    ],
)
def test_what_released_checkpoints_hold_in_vain_is_seen(name: str, keys: dict, unread: set):
    cfg = load_config(f"demo/{name}", [part for item in keys.items() for part in (f"MODEL.{item[0]}", item[1])])
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.DR_SEG.SPSD.SELECT = "cpu", "random"
    model = build_model(cfg, load_towers=False)
    in_head = {name for name in unread_parameters(model, 96) if name.startswith("head.")}
    if name == "dr_seg":
        in_head = {name.split(".")[2] for name in in_head}
    assert in_head == unread
