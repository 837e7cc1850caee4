"""From configuration keys and a channel ranking to the DR-Seg head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from head_inputs import COMPANION, PRIOR, VLM, asks, configured, random_inputs
from torch import nn

from ovrs.config import get_cfg
from ovrs.errors import ConfigError
from ovrs.heads import DRSegHead, build_head
from ovrs.heads.dr_seg.channels import ChannelOptions, ChannelOrder
from ovrs.heads.dr_seg.graph import GraphOptions
from ovrs.heads.dr_seg.ranking_file import ChannelRanking, RankingError
from ovrs.structures import TowerSpec


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = "DRSegHead"
    return tiny_cfg


TOWERS = {"vlm": VLM, "prior": PRIOR}


def build(cfg: CfgNode, **towers: TowerSpec) -> DRSegHead:
    with torch.device("meta"):
        return build_head(cfg, {**TOWERS, **towers})


@pytest.fixture
def ranking(tmp_path: Path) -> ChannelRanking:
    """A ranking of VLM's 16 channels whose lambda of 0.9 gives another order than 0.3."""
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(5, 16))
    ranking = ChannelRanking.from_class_means(
        mean, np.abs(generator.normal(size=(5, 16))), np.full(5, 9), generator.uniform(0.5, 2, 16), lam=0.3
    )
    assert not np.array_equal(ranking.order, ranking.reranked(0.9).order)
    ranking.save(tmp_path / "a ranking.npz")
    return ranking


def test_configuration_reaches_the_head(cfg: CfgNode):
    node = cfg.MODEL.DR_SEG
    node.SPSD.SELECT, node.SPSD.RHO = "random", 0.25
    node.PDGR.TOPK, node.PDGR.N_LAYERS, node.PDGR.DEGREE, node.PDGR.LN_GAMMA_INIT = 11, 3, "col", 0.5
    node.FUSION.UNC_TAU, node.FUSION.UNC_DETACH, node.FUSION.ORI_AGG = 0.05, False, "mean"
    node.FUSION.MS_KERNELS, node.FUSION.HEAD_KERNEL, node.FUSION.EMBED_ACT = [3, 5], 1, "sigmoid"
    node.PRIOR_BLOCK, node.PRIOR_ALIGN, node.USE_PRIOR_TAPS, node.USE_COMPANION_TAPS = 2, "conv", True, True
    node.NUM_LAYERS, node.VLM_BLOCKS, node.PRIOR_BLOCKS, node.COMPANION_BLOCKS = 4, [0, 2], [1, 4], [2, 3]
    cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK = 7
    head = build(cfg, companion=COMPANION)
    assert head.requests() == asks((0, 2), (1, 4, 2), (2, 3), rotations=True)
    assert head.channels.semantic == 4
    assert (head.rectify.options.topk, head.rectify.options.degree, len(head.rectify.layers)) == (11, "col", 3)
    assert isinstance(head.align, nn.Conv2d)
    assert (head.gate.tau, head.gate.detach, head.mean_rotations, head.class_chunk) == (0.05, False, True, 7)
    assert [scale.kernel_size[0] for scale in head.fusion.scales] == [3, 5]
    assert (head.fusion.fuse.kernel_size, head.fusion.activation) == ((1, 1), torch.sigmoid)
    assert len(head.aggregator.layers) == 4

    node.PDGR.ENABLED, node.FUSION.TYPE, node.USE_ROTATION = False, "ori_only", False
    node.USE_PRIOR_TAPS = node.USE_COMPANION_TAPS = False
    assert build(cfg).requests() == asks((0, 2))


def test_defaults_of_the_class_are_those_of_the_configuration():
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "DRSegHead"
    cfg.MODEL.DR_SEG.SPSD.ENABLED = False  # the only key that a file or a choice must fill
    towers = {"vlm": TowerSpec(768, 12, 16, 384, 512), "prior": TowerSpec(1024, 24, 16, 384)}
    with torch.device("meta"):
        by_class = configured(DRSegHead, towers, spsd={"enabled": False})
        by_config = build_head(cfg, towers)
    assert repr(by_class) == repr(by_config)
    assert by_class.requests() == by_config.requests() == asks((3, 7), (23,), rotations=True)
    assert by_class.rectify.options == by_config.rectify.options == GraphOptions()


@pytest.mark.parametrize("lam", [0.3, 0.9])
@pytest.mark.parametrize("select", ["score", "inverse"])
def test_order_comes_from_the_ranking_file(
    cfg: CfgNode, tmp_path: Path, ranking: ChannelRanking, lam: float, select: str
):
    node = cfg.MODEL.DR_SEG.SPSD
    node.FILE, node.LAMBDA, node.SELECT = str(tmp_path / "a ranking.npz"), lam, select
    order = ranking.reranked(lam).order
    expected = order[::-1] if select == "inverse" else order
    options = ChannelOptions(file=node.FILE, lambda_=lam, select=select)
    assert ChannelOrder.of(options, 16).order.tolist() == expected.tolist()
    head = build_head(cfg, TOWERS)
    assert head.channels.order.tolist() == expected.tolist()
    assert head.channels.semantic == 8

    cfg.MODEL.DR_SEG.PDGR.LN_GAMMA_INIT = 0.0
    scale = build_head(cfg, TOWERS).rectify.norm.weight.detach().numpy()
    assert scale == pytest.approx(ranking.channel_rms[expected[8:]].mean())


def test_random_order_needs_no_file_and_is_always_the_same(cfg: CfgNode):
    cfg.MODEL.DR_SEG.SPSD.SELECT = "random"
    orders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        orders.append(build_head(cfg, TOWERS).channels.order.tolist())
    assert orders[0] == orders[1] != list(range(16))
    assert sorted(orders[0]) == list(range(16))


def test_without_decoupling_every_channel_is_structural(cfg: CfgNode):
    cfg.MODEL.DR_SEG.SPSD.ENABLED = False
    head = build_head(cfg, TOWERS)
    assert head.channels.semantic == 0
    assert head.channels.order.tolist() == list(range(16))
    assert head.rectify.norm.normalized_shape == (16,)


def test_order_may_wait_for_a_checkpoint(cfg: CfgNode):
    waiting = build_head(cfg, TOWERS)
    with pytest.raises(RankingError, match=r"SPSD\.FILE is empty and no checkpoint"):
        waiting(*random_inputs(waiting))
    cfg.MODEL.DR_SEG.SPSD.SELECT = "random"
    known = build_head(cfg, TOWERS)
    waiting.load_state_dict(known.state_dict())
    inputs = random_inputs(known)
    with torch.no_grad():
        assert torch.equal(waiting.eval()(*inputs), known.eval()(*inputs))


def test_ranking_file_may_be_gone_where_a_checkpoint_brings_its_content(cfg: CfgNode, tmp_path: Path):
    cfg.MODEL.DR_SEG.SPSD.FILE = str(tmp_path / "gone.npz")
    cfg.MODEL.DR_SEG.PDGR.LN_GAMMA_INIT = 0.0
    with pytest.raises(RankingError, match=r"gone\.npz does not exist \(MODEL\.DR_SEG\.SPSD\.FILE\)"):
        build_head(cfg, TOWERS)
    cfg.MODEL.WEIGHTS = "model_final.pth"
    head = build_head(cfg, TOWERS)
    assert not head.channels.ranked
    cfg.MODEL.DR_SEG.SPSD.SELECT, cfg.MODEL.DR_SEG.PDGR.LN_GAMMA_INIT = "random", 1.0
    known = build_head(cfg, TOWERS)
    head.load_state_dict(known.state_dict())
    assert torch.equal(head.channels.order, known.channels.order)


def test_unknown_selection_is_refused(cfg: CfgNode):
    cfg.MODEL.DR_SEG.SPSD.SELECT = "best"
    with pytest.raises(ConfigError, match=r"DR_SEG\.SPSD\.SELECT must be one of score, random, inverse, got 'best'"):
        build(cfg)


def test_ranking_of_another_joint_space_is_refused(cfg: CfgNode, tmp_path: Path, ranking: ChannelRanking):
    cfg.MODEL.DR_SEG.SPSD.FILE = str(tmp_path / "a ranking.npz")
    with pytest.raises(RankingError, match=r"a ranking\.npz is of 16 channels .*MODEL\.VLM has 24"):
        build_head(cfg, {"vlm": replace(VLM, joint_dim=24), "prior": PRIOR})
