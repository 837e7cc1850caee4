"""Behaviour of the RSKT-Seg head on random features."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from family_reference import naive_rskt_seg
from head_checks import (
    BLIND,
    BLIND_CLASSES,
    assert_close,
    assert_gradients_equal,
    assert_trains_all_it_has,
)
from head_inputs import COMPANION, PRIOR, VLM, asks, configured, random_inputs, small_rskt_seg, with_tower

from ovrs.config import get_cfg
from ovrs.errors import ConfigError
from ovrs.heads import RSKTSegHead, build_head
from ovrs.structures import TowerRequest, TowerSpec

ALL = asks((1, 3), (1, 3), (1, 3), prior_dense="final_norm", rotations=True)
UNTURNED = {**ALL, "vlm": TowerRequest((1, 3), "class_residual")}
VARIANTS = {
    "published": ({}, ALL),
    "mean": ({"fusion": "mean"}, ALL),
    "concat": ({"fusion": "concat"}, ALL),
    "no_rotation": ({"use_rotation": False}, UNTURNED),
    "no_rotation_concat": ({"use_rotation": False, "fusion": "concat"}, UNTURNED),
    "no_prior_cost": ({"use_prior_cost": False}, asks((1, 3), (1, 3), (1, 3), rotations=True)),
    "no_prior_taps": ({"use_prior_taps": False}, {**ALL, "prior": TowerRequest()}),
    "no_companion": ({"use_companion_taps": False}, {name: ALL[name] for name in ("vlm", "prior")}),
    "no_prior": (
        {"use_prior_cost": False, "use_prior_taps": False},
        {name: ALL[name] for name in ("vlm", "companion")},
    ),
    "rotations_alone": (
        {"use_prior_cost": False, "use_prior_taps": False, "use_companion_taps": False, "use_vlm_taps": False},
        asks(rotations=True),
    ),
    "one_layer": ({"num_layers": 1}, ALL),
    "chosen_blocks": (
        {"vlm_blocks": [0, 4], "prior_blocks": [2, 3], "companion_blocks": [0, 2]},
        asks((0, 4), (2, 3), (0, 2), prior_dense="final_norm", rotations=True),
    ),
}


def fusion_of(options: dict) -> str:
    return options.get("fusion", "separate") if options.get("use_prior_cost", True) else "ori_only"


# ---------------------------------------------------------------------- against the naive head


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_logits_equal_the_naive_head(variant: str):
    options, _ = VARIANTS[variant]
    head = small_rskt_seg(**options)
    inputs = random_inputs(head)
    assert_close(head(*inputs), naive_rskt_seg(head, *inputs, fusion=fusion_of(options)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 40])
@torch.no_grad()
def test_logits_equal_the_naive_head_for_any_number_of_classes(classes: int, training: bool):
    head = small_rskt_seg().train(training)
    inputs = random_inputs(head, classes=classes, images=1)
    logits = head(*inputs)
    assert logits.shape == (1, classes, 24, 24)
    assert_close(logits, naive_rskt_seg(head, *inputs))


def test_gradients_equal_those_of_the_naive_head():
    head = small_rskt_seg().train()
    assert_gradients_equal(head, naive_rskt_seg, random_inputs(head, classes=5), BLIND + BLIND_CLASSES)


# ---------------------------------------------------------------------- classes, images, features


@torch.no_grad()
def test_rotated_views_are_not_read_without_rotation():
    head = small_rskt_seg(use_rotation=False)
    inputs = random_inputs(head)
    assert inputs[0]["vlm"].rotated is None
    unread = with_tower(inputs, "vlm", rotated=torch.full((2, 4, 16, 6, 6), torch.nan))
    assert torch.equal(head(*inputs), head(*unread))


@torch.no_grad()
def test_pooling_of_training_and_evaluation_is_the_same_by_default():
    head = small_rskt_seg()
    inputs = random_inputs(head)
    in_evaluation = head(*inputs)
    assert torch.equal(head.train()(*inputs), in_evaluation)
    head.aggregator.pooling_train = 1
    assert (head(*inputs) - in_evaluation).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("patch", "align", "taps"),
    [
        (8, ("Conv2d", 2), [("Conv2d", 1), ("ConvTranspose2d", 2)]),
        (16, ("Conv2d", 1), [("ConvTranspose2d", 2), ("ConvTranspose2d", 4)]),
    ],
)
@torch.no_grad()
def test_priors_of_both_patch_sizes_are_brought_to_the_grids(patch: int, align: tuple, taps: list[tuple]):
    prior = TowerSpec(20, 6, patch, 96)
    head = small_rskt_seg(prior=prior)

    def kind(layer: torch.nn.Module) -> tuple[str, int]:
        return type(layer).__name__, layer.stride[0]

    assert kind(head.align) == align
    assert [kind(tap.resample) for tap in head.decoder.taps["prior"]] == taps
    assert list(head.decoder.taps) == ["vlm", "companion", "prior"]  # the order of the official weights
    inputs = random_inputs(head, prior=prior)
    assert_close(head(*inputs), naive_rskt_seg(head, *inputs))


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_trains_all_its_parameters_on_what_it_asks_for(variant: str):
    options, request = VARIANTS[variant]
    head = small_rskt_seg(**options)
    assert head.requests() == request
    assert_trains_all_it_has(head, random_inputs(head))


def test_towers_that_no_option_uses_may_be_missing():
    options = {"use_prior_cost": False, "use_prior_taps": False, "use_companion_taps": False}
    head = small_rskt_seg(prior=None, companion=None, **options)
    inputs = random_inputs(head, prior=None, companion=None)
    assert head(*inputs).shape == (2, 3, 24, 24)


def test_configuration_reaches_the_head(tiny_cfg: CfgNode):
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = "RSKTSegHead"
    node = tiny_cfg.MODEL.RSKT_SEG
    node.FUSION, node.USE_ROTATION, node.NUM_LAYERS, node.POOLING_TEST = "concat", False, 4, 1
    node.VLM_BLOCKS, node.PRIOR_BLOCKS, node.COMPANION_BLOCKS = [0, 2], [1, 2], [2, 4]
    tiny_cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK = 7
    with torch.device("meta"):
        head = build_head(tiny_cfg, {"vlm": VLM, "prior": PRIOR, "companion": COMPANION})
    assert isinstance(head, RSKTSegHead)
    assert head.fusion.embed.in_channels == 2
    assert len(head.aggregator.layers) == 4
    assert (head.aggregator.pooling_test, head.class_chunk) == (1, 7)
    assert head.requests() == asks((0, 2), (1, 2), (2, 4), prior_dense="final_norm")

    node.USE_PRIOR_COST = node.USE_PRIOR_TAPS = node.USE_COMPANION_TAPS = False
    with torch.device("meta"):
        assert build_head(tiny_cfg, {"vlm": VLM}).requests() == asks((0, 2))


def test_defaults_of_the_class_are_those_of_the_configuration():
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "RSKTSegHead"
    towers = {
        "vlm": TowerSpec(768, 12, 16, 384, 512),
        "prior": TowerSpec(768, 12, 8, 384),
        "companion": TowerSpec(768, 12, 32, 768),
    }
    with torch.device("meta"):
        by_class, by_config = configured(RSKTSegHead, towers), build_head(cfg, towers)
    assert repr(by_class) == repr(by_config)
    expected = asks((3, 7), (3, 7), (3, 7), prior_dense="final_norm", rotations=True)
    assert by_class.requests() == by_config.requests() == expected


@pytest.mark.parametrize(
    ("vlm", "layers", "expected"),
    [
        pytest.param(TowerSpec(768, 12, 16, 384, 512), 3, 5_307_969, id="B-3-layers"),
        pytest.param(TowerSpec(1024, 24, 14, 336, 768), 2, 4_805_057, id="L-2-layers"),
    ],
)
def test_cost_decoder_has_the_published_number_of_parameters(vlm: TowerSpec, layers: int, expected: int):
    with torch.device("meta"):
        towers = {"vlm": vlm, "prior": TowerSpec(768, 12, 8, 384), "companion": TowerSpec(768, 12, 32, 768)}
        head = configured(RSKTSegHead, towers, num_layers=layers)
    # The official code counts the layers that bring towers to the grids elsewhere.
    own = {name: p for name, p in head.named_parameters() if ".resample." not in name and not name.startswith("align.")}
    assert sum(parameter.numel() for parameter in own.values()) == expected


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "ugaf"}, r"MODEL\.RSKT_SEG\.FUSION must be one of separate, mean, concat, got 'ugaf'"),
        ({"tap_proj_dims": (8, 6, 4)}, r"MODEL\.RSKT_SEG\.TAP_PROJ_DIMS .*\(2\)"),
        ({"companion_blocks": [1, 5]}, r"MODEL\.RSKT_SEG\.COMPANION_BLOCKS .*between 0 and 4; got \[1, 5\]"),
        ({"prior_blocks": [1]}, r"MODEL\.RSKT_SEG\.PRIOR_BLOCKS must name 2 blocks.*\[1\]"),
        ({"aggregator": "fast"}, r"MODEL\.RSKT_SEG\.AGGREGATOR must be one of swin, efficient, got 'fast'"),
        ({"num_heads": 5}, r"MODEL\.RSKT_SEG\.HIDDEN_DIM \(32\) must be a multiple of .*RSKT_SEG\.NUM_HEADS \(5\)"),
    ],
)
def test_impossible_option_is_refused_with_its_key(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        small_rskt_seg(**options)


@pytest.mark.parametrize(
    ("options", "missing", "message"),
    [
        ({}, "prior", r"RSKT_SEG\.USE_PRIOR_COST is on, but MODEL\.PRIOR\.NAME is empty"),
        ({"use_prior_cost": False}, "prior", r"RSKT_SEG\.USE_PRIOR_TAPS is on, but MODEL\.PRIOR\.NAME is empty"),
        ({}, "companion", r"RSKT_SEG\.USE_COMPANION_TAPS is on, but MODEL\.COMPANION\.ARCH is empty"),
    ],
)
def test_missing_tower_is_refused_where_an_option_uses_it(options: dict, missing: str, message: str):
    with pytest.raises(ConfigError, match=message):
        small_rskt_seg(**{missing: None}, **options)


@pytest.mark.parametrize(
    ("companion", "message"),
    [
        (TowerSpec(18, 6, 32, 128), r"MODEL\.COMPANION\.INPUT_SIZE 128 with patch 32 give 2/3 "),
        (TowerSpec(18, 6, 32, 0), r"MODEL\.VLM\.INPUT_SIZE and MODEL\.COMPANION\.INPUT_SIZE must both be set"),
    ],
)
def test_companion_whose_grid_does_not_match_is_refused(companion: TowerSpec, message: str):
    with pytest.raises(ConfigError, match=message):
        small_rskt_seg(companion=companion)


@pytest.mark.parametrize("name", ["GSNetHead", "CATSegHead", "RSKTSegHead", "DRSegHead"])
def test_companion_that_the_head_does_not_use_is_refused(name: str):
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = name
    cfg.MODEL.COMPANION.ARCH = "ViT-B-32"
    cfg.MODEL.RSKT_SEG.USE_COMPANION_TAPS = False
    message = (
        f"COMPANION.ARCH is set, but {name} .* asks for nothing of .*'companion': .* set MODEL.COMPANION.ARCH to ''"
    )
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        build_head(cfg, {"vlm": VLM, "prior": PRIOR, "companion": COMPANION})
