"""Behaviour of the DR-Seg head on random features."""

from __future__ import annotations

import pytest
import torch
from detectron2.utils.events import EventStorage
from family_reference import naive_dr_seg, naive_refined
from head_checks import (
    BLIND,
    BLIND_CLASSES,
    assert_close,
    assert_gradients_equal,
    assert_trains_all_it_has,
)
from head_inputs import COMPANION, PRIOR, VLM, asks, configured, random_inputs, small_dr_seg, small_options, with_tower
from torch import nn

from ovrs.errors import ConfigError
from ovrs.heads import DRSegHead
from ovrs.heads.blocks.cost_volume import cosine_cost, rotation_cost
from ovrs.structures import TowerRequest, TowerSpec

ALL = asks((1, 3), (5,), rotations=True)
ORI_ONLY = asks((1, 3), rotations=True)
UNTURNED = asks((1, 3), (5,))
NO_GRAPH = {"pdgr": {"enabled": False}, "fusion": {"type": "ori_only"}}
# Options of the head, and what it asks the towers for.
VARIANTS = {
    "default": ({}, ALL),
    **{
        kind: ({"fusion": {"type": kind}}, ALL)
        for kind in ("mean", "branch_mean", "concat", "add", "separate", "ref_only")
    },
    "ori_only": ({"fusion": {"type": "ori_only"}}, ORI_ONLY),
    "no_graph": (NO_GRAPH, ORI_ONLY),
    "no_rotation": ({"use_rotation": False}, UNTURNED),
    "no_rotation_concat": ({"use_rotation": False, "fusion": {"type": "concat"}}, UNTURNED),
    "mean_of_rotations": ({"fusion": {"ori_agg": "mean"}}, ALL),
    "mean_of_rotations_concat": ({"fusion": {"ori_agg": "mean", "type": "concat"}}, ALL),
    "all_structural": ({"spsd": {"rho": 0.0}}, ALL),
    "all_semantic": ({"spsd": {"rho": 1.0}}, ORI_ONLY),
    "mostly_semantic": ({"spsd": {"rho": 0.7}}, ALL),
    "gate_trains_the_cost": ({"fusion": {"unc_detach": False, "unc_tau": 0.5}}, ALL),
    "sigmoid": ({"fusion": {"embed_act": "sigmoid", "ms_kernels": [3, 9], "head_kernel": 1}}, ALL),
    "block_two": ({"prior_block": 2}, asks((1, 3), (2,), rotations=True)),
    "learned_alignment": ({"prior_align": "conv"}, ALL),
    "graph_readings": (
        {"pdgr": {"degree": "symmetrised", "edge_weight": "mlp_x_affinity", "residual": True, "n_layers": 3}},
        ALL,
    ),
    "prior_taps": ({"use_prior_taps": True}, asks((1, 3), (1, 3, 5), rotations=True)),
    "prior_taps_of_the_graphs_block": (
        {"use_prior_taps": True, "prior_blocks": [2, 4], "prior_block": 4},
        asks((1, 3), (2, 4), rotations=True),
    ),
    "prior_taps_without_graph": ({"use_prior_taps": True, **NO_GRAPH}, asks((1, 3), (1, 3), rotations=True)),
    "companion_taps": (
        {"companion": COMPANION, "use_companion_taps": True},
        asks((1, 3), (5,), (1, 3), rotations=True),
    ),
    "one_layer": ({"num_layers": 1}, ALL),
}


def fusion_of(options: dict) -> str:
    return (options.get("fusion") or {}).get("type", "ugaf")


# ---------------------------------------------------------------------- against the naive head


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_logits_equal_the_naive_head(variant: str):
    options, _ = VARIANTS[variant]
    head = small_dr_seg(**options)
    inputs = random_inputs(head)
    assert_close(head(*inputs), naive_dr_seg(head, *inputs, fusion=fusion_of(options)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 40])
@torch.no_grad()
def test_logits_equal_the_naive_head_for_any_number_of_classes(classes: int, training: bool):
    head = small_dr_seg().train(training)
    inputs = random_inputs(head, classes=classes, images=1)
    logits = head(*inputs)
    assert logits.shape == (1, classes, 24, 24)
    assert_close(logits, naive_dr_seg(head, *inputs))


def test_gradients_equal_those_of_the_naive_head():
    head = small_dr_seg().train()
    assert_gradients_equal(head, naive_dr_seg, random_inputs(head, classes=5), BLIND + BLIND_CLASSES)


# ---------------------------------------------------------------------- decoupling and rectification


@torch.no_grad()
def test_semantic_channels_pass_bit_for_bit_and_structural_ones_are_rectified():
    head = small_dr_seg()
    features, _ = random_inputs(head)
    dense, refined, order = features["vlm"].dense, head.rectified(features), head.channels.order
    assert head.channels.semantic == 8
    assert torch.equal(refined[:, order[:8]], dense[:, order[:8]])
    assert ((refined - dense)[:, order[8:]].abs().amax(dim=(0, 2, 3)) > 1e-2).all()
    assert_close(refined, naive_refined(head, features))


@torch.no_grad()
def test_without_structural_channels_the_refined_cost_is_the_original_one():
    head = small_dr_seg(spsd={"rho": 1.0}, prior=None)
    features, text = random_inputs(head)
    vlm, refined = features["vlm"], head.rectified(features)
    mean = text.embeddings[:, 0]
    assert torch.equal(refined, vlm.dense)
    assert torch.equal(cosine_cost(refined, mean[:, None])[:, :, 0], rotation_cost(vlm.rotated, mean)[:, :, 0])


@torch.no_grad()
def test_rectification_that_does_nothing_gives_the_original_cost():
    head = small_dr_seg()
    head.rectify = Unchanged()
    inputs, seen = random_inputs(head), []
    head.fusion.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    head(*inputs)
    original, gated = seen[0]
    gate, _ = head.gate(original)
    torch.testing.assert_close(gated[:, :, 0], gate * original[:, :, 0])


class Unchanged(nn.Module):
    """A rectification that returns its features."""

    def forward(self, features: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        return features


@pytest.mark.parametrize(
    ("patch", "align", "layer", "stride"),
    [
        (16, "avgpool", nn.Identity, None),
        (16, "conv", nn.Identity, None),
        (8, "avgpool", nn.AvgPool2d, 2),
        (8, "conv", nn.Conv2d, (2, 2)),
        (4, "avgpool", nn.AvgPool2d, 4),
        (32, "avgpool", nn.ConvTranspose2d, (2, 2)),  # a coarser grid is always enlarged by learning
    ],
)
@torch.no_grad()
def test_prior_of_any_patch_size_is_brought_to_the_graph(patch: int, align: str, layer: type, stride: object):
    prior = TowerSpec(20, 6, patch, 96)
    head = small_dr_seg(prior=prior, prior_align=align)
    assert type(head.align) is layer
    assert getattr(head.align, "stride", None) == stride
    inputs = random_inputs(head, prior=prior)
    assert_close(head(*inputs), naive_dr_seg(head, *inputs))
    if layer is nn.AvgPool2d:
        maps = torch.randn(1, 20, 12, 12)
        assert torch.equal(head.align(maps), nn.functional.avg_pool2d(maps, stride))


@torch.no_grad()
def test_graph_reads_the_chosen_block_of_the_prior_and_nothing_else():
    head = small_dr_seg(prior_block=-2)
    inputs = random_inputs(head)
    prior = inputs[0]["prior"]
    assert list(prior.blocks) == [4]
    unread = torch.full_like(prior.blocks[4], torch.nan)
    unread = with_tower(inputs, "prior", dense=unread, blocks={**prior.blocks, 5: unread})
    assert torch.equal(head(*unread), head(*inputs))


def test_scale_of_the_rectified_channels_starts_as_configured():
    for gamma in (1.0, 0.25):
        head = configured(
            DRSegHead, {"vlm": VLM, "prior": PRIOR}, **small_options(DRSegHead, pdgr={"ln_gamma_init": gamma})
        )
        assert (head.rectify.norm.weight == gamma).all()


def test_training_logs_how_unsure_and_how_large_the_channels_are():
    head = small_dr_seg().train()
    inputs = random_inputs(head)
    with EventStorage(0) as storage:
        head(*inputs)
        logged = {name: value for name, (value, _) in storage.latest().items()}
    assert logged.keys() == {"dr_seg/uncertainty", "dr_seg/gate", "dr_seg/rms_ratio"}
    semantic, structural = head.channels.split(inputs[0]["vlm"].dense)
    structural = head.rectify(structural, head.align(inputs[0]["prior"].blocks[5]))
    ratio = structural.square().mean().sqrt() / semantic.square().mean().sqrt()
    assert logged["dr_seg/rms_ratio"] == pytest.approx(ratio.item(), rel=1e-4)
    with EventStorage(0) as storage, torch.no_grad():
        head.eval()(*inputs)
        assert not storage.latest()


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_trains_all_its_parameters_on_what_it_asks_for(variant: str):
    options, request = VARIANTS[variant]
    head = small_dr_seg(**options)
    assert head.requests() == request
    assert_trains_all_it_has(head, random_inputs(head))


def test_gradients_reach_the_features_of_clip_and_not_the_order():
    head = small_dr_seg().train()
    features, text = random_inputs(head)
    image = features["vlm"]
    image.dense.requires_grad_()
    image.rotated.requires_grad_()
    head(features, text).square().mean().backward()
    assert (image.dense.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    assert (image.rotated.grad.abs().amax(dim=(0, 2, 3, 4)) > 0).all()
    assert "channels.order" in head.state_dict()
    assert "channels.order" not in dict(head.named_parameters())


def test_prior_is_not_needed_without_the_graph():
    head = small_dr_seg(prior=None, **NO_GRAPH)
    assert head(*random_inputs(head, prior=None)).shape == (2, 3, 24, 24)
    assert "channels.order" not in head.state_dict()


@pytest.mark.parametrize(
    ("vlm", "layers", "expected"),
    [
        pytest.param(TowerSpec(768, 12, 16, 384, 512), 3, 6_580_836, id="B-DINOv3"),
        pytest.param(TowerSpec(1024, 24, 14, 336, 768), 2, 7_028_452, id="L-DINOv3"),
    ],
)
def test_head_has_the_published_number_of_parameters(vlm: TowerSpec, layers: int, expected: int):
    prior = TowerSpec(1024, 24, 16, 384)
    with torch.device("meta"):
        head = configured(DRSegHead, {"vlm": vlm, "prior": prior}, spsd={"select": "random"}, num_layers=layers)
    assert sum(parameter.numel() for parameter in head.parameters()) == expected
    assert head.requests()["prior"] == TowerRequest((23,), "none")


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pdgr": {"enabled": False}},
            r"DR_SEG\.PDGR\.ENABLED is off.*set MODEL\.DR_SEG\.FUSION\.TYPE to 'ori_only', got 'ugaf'",
        ),
        ({"prior": None}, r"DR_SEG\.PDGR\.ENABLED is on, but MODEL\.PRIOR\.NAME is empty"),
        ({"use_companion_taps": True}, r"USE_COMPANION_TAPS is on, but MODEL\.COMPANION\.ARCH is empty"),
        ({"fusion": {"type": "sum"}}, r"MODEL\.DR_SEG\.FUSION\.TYPE must be one of ugaf, .*'sum'"),
        ({"fusion": {"embed_act": "relu"}}, r"FUSION\.EMBED_ACT must be one of none, sigmoid, got 'relu'"),
        ({"fusion": {"ori_agg": "max"}}, r"FUSION\.ORI_AGG must be one of stack, mean, got 'max'"),
        ({"fusion": {"unc_tau": 0.0}}, r"FUSION\.UNC_TAU must be above 0, got 0\.0"),
        ({"fusion": {"ms_kernels": [3, 4]}}, r"FUSION\.MS_KERNELS must be odd and above 0, got \[3, 4\]"),
        ({"fusion": {"ms_kernels": []}}, r"FUSION\.MS_KERNELS must be odd and above 0, got \[\]"),
        ({"fusion": {"head_kernel": 2}}, r"FUSION\.HEAD_KERNEL must be odd and above 0, got \[2\]"),
        ({"prior_block": 6}, r"MODEL\.DR_SEG\.PRIOR_BLOCK must be between -6 and 5, got 6"),
        ({"prior_block": -7}, r"MODEL\.DR_SEG\.PRIOR_BLOCK must be between -6 and 5, got -7"),
        ({"prior_align": "max"}, r"MODEL\.DR_SEG\.PRIOR_ALIGN must be one of avgpool, conv, got 'max'"),
        ({"spsd": {"rho": 1.5}}, r"MODEL\.DR_SEG\.SPSD\.RHO must be at most 1, got 1\.5"),
        (
            {"pdgr": {"ln_gamma_init": 0.0}},
            r"PDGR\.LN_GAMMA_INIT 0 takes the scale .* set MODEL\.DR_SEG\.SPSD\.FILE too",
        ),
        ({"pdgr": {"topk": 0}}, r"MODEL\.DR_SEG\.PDGR\.TOPK must be at least 1, got 0"),
        ({"vlm_blocks": [5, 1]}, r"MODEL\.DR_SEG\.VLM_BLOCKS .*between 0 and 4; got \[5, 1\]"),
        ({"prior": TowerSpec(20, 6, 16, 64)}, r"MODEL\.PRIOR\.INPUT_SIZE 64 with patch 16 give 2/3 "),
    ],
)
def test_impossible_option_is_refused_with_its_key(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        small_dr_seg(**options)


@pytest.mark.parametrize(("training", "iteration", "logged"), [(True, 0, True), (True, 1, False), (False, 0, False)])
def test_diagnostics_go_into_the_log_of_training_when_it_is_written(training: bool, iteration: int, logged: bool):
    head = small_dr_seg().train(training)
    inputs = random_inputs(head)
    with EventStorage(iteration) as storage:
        head(*inputs)
    names = {"dr_seg/uncertainty", "dr_seg/gate", "dr_seg/rms_ratio"} if logged else set()
    assert set(storage.latest()) == names
    assert [histogram["tag"] for histogram in storage._histograms] == ["dr_seg/uncertainty"] * logged
