"""Behaviour of the GSNet head on random features: equivariances, options, shapes of towers, refusals."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from gsnet_reference import naive_head
from head_checks import (
    BLIND,
    assert_close,
    assert_gradients_equal,
    assert_trains_all_it_has,
)
from head_inputs import PRIOR, VLM, asks, choose_classes, configured, filled, random_inputs, small_head

from ovrs.config import get_cfg
from ovrs.errors import ConfigError
from ovrs.heads import GSNetHead, build_head
from ovrs.structures import TextFeatures, TowerFeatures, TowerSpec

# Every switch of the paper's ablations, and what the head must ask the towers for.
VLM_ONLY = {"use_prior_cost": False, "use_prior_taps": False}
BOTH = asks((1, 3), (1, 3), prior_dense="final_norm")
VARIANTS = {
    "published": ({}, BOTH),
    "concatenation": ({"fusion": "concatenation"}, BOTH),
    "fused_query": ({"fusion": "fused_query"}, BOTH),
    "vlm_cost_only": ({"use_prior_cost": False}, asks((1, 3), (1, 3))),
    "prior_cost_only": ({"use_vlm_cost": False}, asks((1, 3), (1, 3), dense="none", prior_dense="final_norm")),
    "no_taps": ({"use_vlm_taps": False, "use_prior_taps": False}, asks((), (), prior_dense="final_norm")),
    "vlm_taps_only": ({"use_prior_taps": False}, asks((1, 3), (), prior_dense="final_norm")),
    "prior_taps_only": ({"use_vlm_taps": False}, asks((), (1, 3), prior_dense="final_norm")),
    "no_prior": (VLM_ONLY, asks((1, 3))),
    "no_prior_no_taps": ({**VLM_ONLY, "use_vlm_taps": False}, asks(())),
    "prior_alone": ({"use_vlm_cost": False, "use_vlm_taps": False}, asks(None, (1, 3), prior_dense="final_norm")),
    "full_attention": ({"class_attention": "full"}, BOTH),
    "no_aggregator": ({"num_layers": 0}, BOTH),
    "chosen_blocks": ({"vlm_blocks": [0, 4], "prior_blocks": [2, 3]}, asks((0, 4), (2, 3), prior_dense="final_norm")),
    "one_level": (
        {"decoder_dims": (16,), "tap_dims": (12,), "tap_proj_dims": (8,)},
        asks((2,), (2,), prior_dense="final_norm"),
    ),
    "three_levels": (
        {"decoder_dims": (32, 32, 16), "tap_dims": (12, 10, 8), "tap_proj_dims": (8, 6, 4)},
        asks((0, 2, 3), (0, 2, 3), prior_dense="final_norm"),
    ),
}


# ---------------------------------------------------------------------- against the naive head


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_logits_equal_the_naive_head(variant: str):
    head = small_head(**VARIANTS[variant][0])
    inputs = random_inputs(head)
    logits = head(*inputs)
    enlarged = 6 * 2 ** len(head.decoder.stages)
    assert logits.shape == (2, 3, enlarged, enlarged)
    assert_close(logits, naive_head(head, *inputs))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("classes", [2, 5, 40])
@torch.no_grad()
def test_logits_equal_the_naive_head_for_any_number_of_classes(classes: int, training: bool):
    head = small_head().train(training)
    inputs = random_inputs(head, classes=classes, images=1)
    assert_close(head(*inputs), naive_head(head, *inputs))


def test_gradients_equal_those_of_the_naive_head():
    head = small_head().train()
    assert_gradients_equal(head, naive_head, random_inputs(head, classes=5), BLIND)


# ---------------------------------------------------------------------- classes and images


@torch.no_grad()
def test_logits_of_a_class_depend_on_the_others_but_its_fused_maps_do_not():
    head = small_head()
    fused = []
    head.fusion.register_forward_hook(lambda module, inputs, output: fused.append(output))
    features, text = random_inputs(head, classes=5)
    all_classes, two = head(features, text), head(features, choose_classes(text, [0, 3]))
    torch.testing.assert_close(fused[1], fused[0][:, [0, 3]], rtol=1e-5, atol=1e-5)
    assert (two - all_classes[:, [0, 3]]).abs().max() > 1e-3


def test_chunks_bound_the_maps_that_the_decoder_sees_at_inference_only():
    head = small_head(class_chunk=2)
    seen = []
    head.decoder.stages[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[1]))
    inputs = random_inputs(head, classes=5)
    with torch.no_grad():
        head(*inputs)
    assert seen == [2, 2, 1]
    seen.clear()
    head(*inputs)
    assert seen == [5]


@torch.no_grad()
def test_automatic_chunks_shrink_with_the_batch():
    head = small_head()
    seen = []
    head.decoder.stages[0].register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].shape[:2].numel())
    )
    head(*random_inputs(head, classes=60, images=1))
    one = max(seen)
    seen.clear()
    head(*random_inputs(head, classes=60, images=4))
    assert one < 60
    assert max(seen) <= one


@torch.no_grad()
def test_pooling_of_training_and_evaluation_differ():
    head = small_head(pooling_train=2, pooling_test=1)
    inputs = random_inputs(head)
    in_evaluation, in_training = head(*inputs), head.train()(*inputs)
    assert (in_evaluation - in_training).abs().max() > 1e-3
    head.aggregator.pooling_train = 1
    assert torch.equal(head(*inputs), in_evaluation)


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_trains_all_its_parameters_on_what_it_asks_for(variant: str):
    options, request = VARIANTS[variant]
    head = small_head(**options)
    assert head.requests() == request
    inputs = random_inputs(head)  # exactly what was asked for, nothing else
    # Without aggregator layers nothing reads the guidance of their attention.
    unread = ("aggregator.",) if not head.aggregator.layers else ()
    assert_trains_all_it_has(head, inputs, unread)


def test_mean_of_templates_is_one_query():
    head = small_head()
    features, text = random_inputs(head, prompts=3)
    mean = torch.nn.functional.normalize(text.embeddings.mean(dim=1, keepdim=True), dim=-1)
    as_one = TextFeatures(mean, text.class_of, text.classes)
    torch.testing.assert_close(head(features, text), head(features, as_one))


@pytest.mark.parametrize("options", [{}, {"fusion": "fused_query"}, VLM_ONLY], ids=["query_guided", "fused", "vlm"])
@torch.no_grad()
def test_templates_as_channels_of_the_cost(options: dict):
    head = small_head(prompt_fusion="channels", prompts=3, **options)
    features, text = random_inputs(head, prompts=3)
    logits = head(features, text)
    assert_close(logits, naive_head(head, features, text))
    swapped = TextFeatures(text.embeddings[:, [1, 0, 2]], text.class_of, text.classes)
    assert (head(features, swapped) - logits).abs().max() > 1e-3


def test_configuration_reaches_the_head(tiny_cfg: CfgNode):
    tiny_cfg.VOCABULARY.TEMPLATES = ["a {}", "the {}", "some {}"]
    tiny_cfg.MODEL.GSNET.PROMPT_FUSION = "channels"
    tiny_cfg.MODEL.GSNET.FUSION = "fused_query"
    tiny_cfg.MODEL.GSNET.POOLING_TRAIN = 3
    tiny_cfg.MODEL.GSNET.VLM_BLOCKS = [0, 2]
    tiny_cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK = 7
    head = build_head(tiny_cfg, {"vlm": VLM, "prior": PRIOR})
    assert isinstance(head, GSNetHead)
    assert head.fusion.cost.embed.in_channels == 3
    assert (head.aggregator.pooling_train, head.class_chunk, head.decoder.blocks["vlm"]) == (3, 7, (0, 2))


def test_defaults_of_the_class_are_those_of_the_configuration():
    towers = {"vlm": TowerSpec(768, 12, 16, 384, 512), "prior": TowerSpec(768, 12, 8, 384)}
    with torch.device("meta"):
        by_class, by_config = configured(GSNetHead, towers), build_head(get_cfg(), towers)
    assert repr(by_class) == repr(by_config)
    assert by_class.requests() == by_config.requests() == asks((3, 7), (3, 7), prior_dense="final_norm")
    # Head and the five alignment and tap layers of the published model.
    assert sum(parameter.numel() for parameter in by_class.parameters()) == 4_036_369 + 4_523_264


# ---------------------------------------------------------------------- towers of other shapes


@pytest.mark.parametrize(
    ("patch", "align", "taps"),
    [
        (4, ("Conv2d", 4), [("Conv2d", 2), ("Conv2d", 1)]),
        (8, ("Conv2d", 2), [("Conv2d", 1), ("ConvTranspose2d", 2)]),
        (16, ("Conv2d", 1), [("ConvTranspose2d", 2), ("ConvTranspose2d", 4)]),
        (32, ("ConvTranspose2d", 2), [("ConvTranspose2d", 4), ("ConvTranspose2d", 8)]),
    ],
)
@torch.no_grad()
def test_prior_of_any_patch_size_is_brought_to_the_grids(patch: int, align: tuple, taps: list[tuple]):
    prior = TowerSpec(width=20, depth=6, patch_size=patch, input_size=128)
    vlm = TowerSpec(width=24, depth=6, patch_size=16, input_size=128, joint_dim=16)
    head = small_head(vlm, prior)

    def kind(layer: torch.nn.Module) -> tuple[str, int]:
        return type(layer).__name__, layer.stride[0]

    assert kind(head.align) == align
    assert [kind(tap.resample) for tap in head.decoder.taps["prior"]] == taps
    inputs = random_inputs(head, vlm, prior, images=1)
    logits = head(*inputs)
    assert logits.shape == (1, 3, 32, 32)
    assert_close(logits, naive_head(head, *inputs))


@torch.no_grad()
def test_images_of_any_size_keep_their_grid():
    vlm = TowerSpec(width=24, depth=6, patch_size=16, input_size=0, joint_dim=16)
    prior = TowerSpec(width=20, depth=6, patch_size=8, input_size=0)
    head = small_head(vlm, prior)
    inputs = random_inputs(head, vlm, prior, grid=(5, 7), prior_grid=(10, 14))
    logits = head(*inputs)
    assert logits.shape == (2, 3, 20, 28)
    assert_close(logits, naive_head(head, *inputs))


@torch.no_grad()
def test_large_clip_at_336_with_a_dinov3_prior():
    vlm, prior = TowerSpec(1024, 24, 14, 336, 768), TowerSpec(1024, 24, 16, 384)
    head = filled(configured(GSNetHead, {"vlm": vlm, "prior": prior})).eval()
    assert head.requests() == asks((7, 15), (7, 15), prior_dense="final_norm")
    assert (head.align.in_channels, head.align.out_channels) == (1024, 768)
    inputs = random_inputs(head, vlm, prior, images=1, classes=2)
    assert all(tower.dense.shape[-2:] == (24, 24) for tower in inputs[0].values())
    logits = head(*inputs)
    assert logits.shape == (1, 2, 96, 96)
    assert torch.isfinite(logits).all()
    assert logits.std() > 1e-3


@torch.no_grad()
def test_prior_features_are_not_read_without_need():
    head = small_head(prior=None, **VLM_ONLY)
    features, text = random_inputs(head)
    assert features.keys() == {"vlm"}
    unread = TowerFeatures(torch.full((2, 20, 12, 12), torch.nan))
    assert torch.equal(head(features, text), head({**features, "prior": unread}, text))


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_vlm_cost": False, "use_prior_cost": False}, "USE_VLM_COST and USE_PRIOR_COST are both off"),
        ({"fusion": "sum"}, "MODEL.GSNET.FUSION must be one of query_guided, .*'sum'"),
        ({"tap_dims": (12,)}, r"MODEL.GSNET.TAP_DIMS .*\(2\).*12"),
        ({"tap_proj_dims": (8, 6, 4)}, r"MODEL.GSNET.TAP_PROJ_DIMS .*\(2\)"),
        ({"vlm_blocks": [1]}, r"MODEL.GSNET.VLM_BLOCKS must name 2 blocks.*\[1\]"),
        ({"vlm_blocks": [1, 5]}, r"MODEL.GSNET.VLM_BLOCKS .*between 0 and 4; got \[1, 5\]"),
        ({"prior_blocks": [-1, 2]}, r"MODEL.GSNET.PRIOR_BLOCKS .*between 0 and 4; got \[-1, 2\]"),
        ({"class_attention": "quadratic"}, "CLASS_ATTENTION must be one of linear, full, got 'quadratic'"),
        ({"num_heads": 3}, r"MODEL.GSNET.HIDDEN_DIM \(32\) must be a multiple of .*NUM_HEADS \(3\)"),
        ({"decoder_dims": (32, 20)}, "DECODER_DIMS must be multiples of 16, got 20"),
        ({"tap_proj_dims": (32, 6)}, r"MODEL.GSNET.TAP_PROJ_DIMS \[32, 6\] must stay below .*HIDDEN_DIM 32"),
        ({"tap_proj_dims": (8, 32)}, r"MODEL.GSNET.TAP_PROJ_DIMS \[8, 32\] .*DECODER_DIMS \[32, 16\]"),
        ({"window_size": 0}, "MODEL.GSNET.WINDOW_SIZE must be at least 1, got 0"),
        ({"pooling_train": 0}, "MODEL.GSNET.POOLING_TRAIN must be at least 1, got 0"),
    ],
)
def test_impossible_option_is_refused_with_its_key(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        small_head(**options)


@pytest.mark.parametrize(
    ("options", "wanted_by"),
    [({}, "COST"), ({"use_prior_cost": False}, "TAPS"), ({"use_prior_taps": False}, "COST")],
)
def test_missing_prior_is_refused_where_an_option_uses_it(options: dict, wanted_by: str):
    with pytest.raises(ConfigError, match=rf"GSNET.USE_PRIOR_{wanted_by} is on, but MODEL.PRIOR.NAME is empty"):
        small_head(prior=None, **options)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (
            TowerSpec(20, 6, 8, 72),
            "VLM.INPUT_SIZE 96 with patch 16 and MODEL.PRIOR.INPUT_SIZE 72 with patch 8 give 3/2 ",
        ),
        (TowerSpec(20, 6, 8, 0), "MODEL.VLM.INPUT_SIZE and MODEL.PRIOR.INPUT_SIZE must both be set or both be 0"),
    ],
)
def test_grids_that_do_not_match_are_refused(prior: TowerSpec, message: str):
    with pytest.raises(ConfigError, match=message):
        small_head(prior=prior)


def test_patch_sizes_that_do_not_match_are_refused_for_images_of_any_size():
    with pytest.raises(ConfigError, match=r"patch 14 and .* patch 8 give 7/4 .*whole multiple"):
        small_head(TowerSpec(24, 6, 14, 0, 16), TowerSpec(20, 6, 8, 0))


def test_unknown_prompt_fusion_is_refused(tiny_cfg: CfgNode):
    tiny_cfg.MODEL.GSNET.PROMPT_FUSION = "max"
    with pytest.raises(ConfigError, match=r"MODEL.GSNET.PROMPT_FUSION must be one of mean, channels, got 'max'"):
        build_head(tiny_cfg, {"vlm": VLM, "prior": PRIOR})
