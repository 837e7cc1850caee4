"""How a configuration builds a head, and what heads say about themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from head_inputs import COMPANION, PRIOR, VLM
from torch import Tensor, nn

from ovrs.config import OPTION_GROUPS, ConfigError, Options, get_cfg, option
from ovrs.heads import Artefact, Head, HeadContext, build_head, head_class, list_heads, register_head
from ovrs.heads.dr_seg.ranking_file import ChannelRanking
from ovrs.scores import ScoreRule
from ovrs.structures import TowerRequest, TowerSpec

TOWERS = {"vlm": VLM, "prior": PRIOR, "companion": COMPANION}


@pytest.fixture
def cfg(monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    """A configuration that knows the two heads below, and nobody else does."""
    monkeypatch.setattr(SEM_SEG_HEADS_REGISTRY, "_obj_map", dict(SEM_SEG_HEADS_REGISTRY._obj_map))
    before = dict(OPTION_GROUPS)
    register_head("OWN_TEST", OwnOptions)(Trained)
    register_head()(TrainingFree)
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "Trained"
    yield cfg
    OPTION_GROUPS.clear()
    OPTION_GROUPS.update(before)


@dataclass(frozen=True)
class OwnOptions(Options):
    """Options of a test."""

    wants: tuple[str, ...] = option(("vlm",), "towers")


class Trained(Head):
    """A head of one layer that asks for the towers it is told to."""

    def __init__(self, options: OwnOptions, towers: dict[str, TowerSpec], context: HeadContext) -> None:
        super().__init__()
        self.given, self.context, self.layer = options, context, nn.Linear(2, 2)

    def requests(self) -> dict[str, TowerRequest]:
        return dict.fromkeys(self.given.wants, TowerRequest())

    def forward(self, features: dict, text: object) -> Tensor:
        raise NotImplementedError


class TrainingFree(Trained):
    """A head without parameters and options."""

    needs_training = False
    rule = ScoreRule("softmax", scale=40.0, synonyms="max")

    def __init__(self, options: Options, towers: dict[str, TowerSpec], context: HeadContext) -> None:
        Head.__init__(self)

    def requests(self) -> dict[str, TowerRequest]:
        return {"vlm": TowerRequest(dense="none", last_block=True)}


def test_context_says_what_every_head_is_told(cfg: CfgNode):
    cfg.VOCABULARY.TEMPLATES = ["a {}", "the {}", "some {}"]
    cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK, cfg.MODEL.SEM_SEG_HEAD.INITIAL_PROBABILITY = 5, 0.25
    cfg.MODEL.WEIGHTS = "model_final.pth"
    context = build_head(cfg, {"vlm": VLM}).context
    assert context == HeadContext(prompts=3, class_chunk=5, initial_probability=0.25, checkpoint=True)
    assert torch.tensor(context.initial_bias).sigmoid() == pytest.approx(0.25)
    assert HeadContext().initial_bias is None


@pytest.mark.parametrize("probability", [1.0, 1.5, -0.1])
def test_impossible_initial_probability_is_refused(cfg: CfgNode, probability: float):
    cfg.MODEL.SEM_SEG_HEAD.INITIAL_PROBABILITY = probability
    with pytest.raises(ConfigError, match=r"INITIAL_PROBABILITY must be at least 0 and below 1, got"):
        build_head(cfg, {"vlm": VLM})


def test_impossible_class_chunk_is_refused(cfg: CfgNode):
    cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK = -1
    with pytest.raises(ConfigError, match=r"MODEL\.SEM_SEG_HEAD\.CLASS_CHUNK must be at least 0, got -1"):
        build_head(cfg, {"vlm": VLM})


@pytest.mark.parametrize(("loss", "activation"), [("bce", "sigmoid"), ("ce", "softmax")])
def test_trained_head_scores_by_the_loss_that_it_is_trained_with(cfg: CfgNode, loss: str, activation: str):
    cfg.MODEL.LOSS.NAME = loss
    assert build_head(cfg, {"vlm": VLM}).rule == ScoreRule(activation)
    assert Trained.rule == ScoreRule()


def test_training_free_head_keeps_its_own_rule(cfg: CfgNode):
    cfg.MODEL.SEM_SEG_HEAD.NAME = "TrainingFree"
    assert build_head(cfg, {"vlm": VLM}).rule == ScoreRule("softmax", scale=40.0, synonyms="max")


def test_published_heads_score_as_published():
    activations = {name: SEM_SEG_HEADS_REGISTRY.get(name).rule.activation for name in list_heads()}
    assert activations.pop("HGRSOVSSegHead") == "softmax"
    family = ("CATSegHead", "DRSegHead", "GSNetHead", "RSKTSegHead")
    assert {activations[name] for name in family} == {"sigmoid"}


def test_unknown_head_is_refused_with_the_nearest_name(cfg: CfgNode):
    cfg.MODEL.SEM_SEG_HEAD.NAME = "GSNet"
    with pytest.raises(ConfigError, match=r"MODEL\.SEM_SEG_HEAD\.NAME must be one of .*Did you mean 'GSNetHead'"):
        head_class(cfg)


@pytest.mark.parametrize(("tower", "key"), [("prior", "MODEL.PRIOR.NAME"), ("companion", "MODEL.COMPANION.ARCH")])
def test_tower_that_is_asked_for_and_missing_is_refused(cfg: CfgNode, tower: str, key: str):
    cfg.MODEL.OWN_TEST.WANTS = ["vlm", tower]
    assert set(build_head(cfg, TOWERS if tower == "companion" else {"vlm": VLM, "prior": PRIOR}).requests()) == {
        "vlm",
        tower,
    }
    with pytest.raises(ConfigError, match=f"Trained as configured needs the tower '{tower}'; set {key}"):
        build_head(cfg, {"vlm": VLM})


def test_companion_that_nothing_asks_for_is_refused_and_the_default_prior_is_not(cfg: CfgNode):
    build_head(cfg, {"vlm": VLM, "prior": PRIOR})
    with pytest.raises(ConfigError, match=r"MODEL\.COMPANION\.ARCH is set, but Trained .* nothing of the tower"):
        build_head(cfg, TOWERS)


# ---------------------------------------------------------------------- files that a head needs first


def test_most_heads_need_no_file():
    cfg = get_cfg()
    for name in list_heads():
        cfg.MODEL.SEM_SEG_HEAD.NAME = name
        assert len(head_class(cfg).artefacts(cfg)) == (name == "DRSegHead")


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ((), True),
        (("SPSD.SELECT", "inverse"), True),
        (("SPSD.SELECT", "random"), False),
        (("SPSD.ENABLED", False), False),
        (("FUSION.TYPE", "ori_only"), False),
        (("PDGR.ENABLED", False, "FUSION.TYPE", "ori_only"), False),
    ],
)
def test_dr_seg_needs_a_ranking_where_the_order_comes_from_it(words: tuple, needed: bool):
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "DRSegHead"
    cfg.MODEL.DR_SEG.merge_from_list(list(words))
    found = head_class(cfg).artefacts(cfg)
    assert len(found) == needed
    for artefact in found:
        assert (artefact.key, artefact.path, artefact.exists) == ("MODEL.DR_SEG.SPSD.FILE", "", False)
        cfg.merge_from_list(list(artefact.stand_in))
        assert head_class(cfg).artefacts(cfg) == ()
        build_head(cfg, {"vlm": VLM, "prior": PRIOR})


def test_artefact_is_there_when_its_file_is(tmp_path: Path):
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "DRSegHead"
    cfg.MODEL.DR_SEG.SPSD.FILE = str(tmp_path / "channels.npz")
    (artefact,) = head_class(cfg).artefacts(cfg)
    assert not artefact.exists
    ones = np.ones((2, 4))
    ChannelRanking.from_class_means(ones, ones, np.array([1, 1]), np.ones(4)).save(artefact.path)
    assert artefact.exists


def test_artefact_is_made_by_the_function_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_maker.py").write_text(
        "from pathlib import Path\ndef make(cfg, dataset, path): Path(path).write_text(f'{cfg} {dataset}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    artefact = Artefact("MODEL.OWN.FILE", "", "own.npz", "a command", "own_maker:make")
    artefact.make("cfg", "set:train", tmp_path / "made")
    assert (tmp_path / "made").read_text() == "cfg set:train"
