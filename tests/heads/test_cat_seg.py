"""Behaviour of the CAT-Seg head on random features."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from family_reference import naive_cat_seg
from head_checks import (
    BLIND,
    assert_close,
    assert_gradients_equal,
    assert_trains_all_it_has,
)
from head_inputs import PRIOR, VLM, asks, choose_classes, configured, random_inputs, small_cat_seg

from ovrs.config import get_cfg
from ovrs.errors import ConfigError
from ovrs.heads import CATSegHead, build_head
from ovrs.structures import TextFeatures, TowerSpec

VARIANTS = {
    "published": ({}, asks((1, 3))),
    "full_attention": ({"class_attention": "full"}, asks((1, 3))),
    "three_layers": ({"num_layers": 3}, asks((1, 3))),
    "chosen_blocks": ({"vlm_blocks": [0, 4]}, asks((0, 4))),
    "efficient": ({"aggregator": "efficient", "num_heads": 8}, asks((1, 3))),
    "one_level": ({"decoder_dims": (16,), "tap_dims": (12,), "tap_proj_dims": (8,)}, asks((2,))),
}


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "efficient"])
@torch.no_grad()
def test_logits_equal_the_naive_head(variant: str):
    head = small_cat_seg(**VARIANTS[variant][0])
    inputs = random_inputs(head)
    assert_close(head(*inputs), naive_cat_seg(head, *inputs))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 40])
@torch.no_grad()
def test_logits_equal_the_naive_head_for_any_number_of_classes(classes: int, training: bool):
    head = small_cat_seg().train(training)
    inputs = random_inputs(head, classes=classes, images=1)
    logits = head(*inputs)
    assert logits.shape == (1, classes, 24, 24)
    assert_close(logits, naive_cat_seg(head, *inputs))


def test_gradients_equal_those_of_the_naive_head():
    head = small_cat_seg().train()
    assert_gradients_equal(head, naive_cat_seg, random_inputs(head, classes=5), BLIND)


@torch.no_grad()
def test_templates_as_channels_of_the_cost():
    head = small_cat_seg(prompt_fusion="channels", prompts=3)
    features, text = random_inputs(head, prompts=3)
    logits = head(features, text)
    assert_close(logits, naive_cat_seg(head, features, text))
    assert_close(head(features, choose_classes(text, [2, 0, 1])), logits[:, [2, 0, 1]])
    swapped = TextFeatures(text.embeddings[:, [1, 0, 2]], text.class_of, text.classes)
    assert (head(features, swapped) - logits).abs().max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_trains_all_its_parameters_on_what_it_asks_for(variant: str):
    options, request = VARIANTS[variant]
    head = small_cat_seg(**options)
    assert head.requests() == request
    inputs = random_inputs(head)
    assert inputs[0].keys() == {"vlm"}
    assert_trains_all_it_has(head, inputs)


def test_configuration_reaches_the_head(tiny_cfg: CfgNode):
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = "CATSegHead"
    tiny_cfg.VOCABULARY.TEMPLATES = ["a {}", "the {}"]
    node = tiny_cfg.MODEL.CAT_SEG
    node.PROMPT_FUSION, node.POOLING_TRAIN, node.VLM_BLOCKS, node.NUM_LAYERS = "channels", 3, [0, 2], 1
    tiny_cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK = 7
    tiny_cfg.MODEL.SEM_SEG_HEAD.INITIAL_PROBABILITY = 0.5
    head = build_head(tiny_cfg, {"vlm": VLM, "prior": PRIOR})
    assert isinstance(head, CATSegHead)
    assert head.embed.embed.in_channels == 2
    assert len(head.aggregator.layers) == 1
    assert (head.aggregator.pooling_train, head.class_chunk, head.decoder.blocks) == (3, 7, {"vlm": (0, 2)})
    assert head.decoder.predictor.bias.item() == 0.0
    assert head.requests() == asks((0, 2))


def test_defaults_of_the_class_are_those_of_the_configuration():
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "CATSegHead"
    vlm = TowerSpec(768, 12, 16, 384, 512)
    with torch.device("meta"):
        by_class, by_config = configured(CATSegHead, {"vlm": vlm}), build_head(cfg, {"vlm": vlm})
    assert repr(by_class) == repr(by_config)
    assert by_class.requests() == by_config.requests() == asks((3, 7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tap_dims": (12,)}, r"MODEL\.CAT_SEG\.TAP_DIMS .*\(2\).*12"),
        ({"vlm_blocks": [1, 5]}, r"MODEL\.CAT_SEG\.VLM_BLOCKS .*between 0 and 4; got \[1, 5\]"),
        ({"aggregator": "swim"}, r"MODEL\.CAT_SEG\.AGGREGATOR must be one of swin, efficient, got 'swim'"),
        ({"num_heads": 5}, r"MODEL\.CAT_SEG\.HIDDEN_DIM \(32\) must be a multiple of .*CAT_SEG\.NUM_HEADS \(5\)"),
        ({"pooling_test": 0}, r"MODEL\.CAT_SEG\.POOLING_TEST must be at least 1, got 0"),
    ],
)
def test_impossible_option_is_refused_with_its_key(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        small_cat_seg(**options)


def test_unknown_prompt_fusion_is_refused(tiny_cfg: CfgNode):
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = "CATSegHead"
    tiny_cfg.MODEL.CAT_SEG.PROMPT_FUSION = "max"
    with pytest.raises(ConfigError, match=r"MODEL\.CAT_SEG\.PROMPT_FUSION must be one of mean, channels, got 'max'"):
        build_head(tiny_cfg, {"vlm": VLM})
