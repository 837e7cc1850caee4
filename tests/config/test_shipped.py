"""Every configuration that is shipped can be used."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from tiny_sam3 import require_sam3

import ovrs.segmenter
from ovrs.backbones import build_towers
from ovrs.backbones.weights import choose_activation, find_entry
from ovrs.config import list_papers, load_config, load_paper
from ovrs.data import built_in_cards
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.zoo import list_models

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*.yaml") if file.parent.name != "papers")
ROWS = [
    f"papers/{paper}.yaml:{table.key}/{row.key}"
    for paper in list_papers()
    for table in load_paper(paper).tables.values()
    for row in table.rows.values()
    if row.config is not None
]


@pytest.fixture(scope="module")
def built():
    """The towers of all configurations, each once."""
    return {}


@pytest.fixture
def build_once(built, monkeypatch):
    """Let segmenters of equal tower settings share their towers: they cost most of the time."""

    def sharing(build):
        def build_or_share(cfg, **options):
            key = tuple(cfg.MODEL[name].dump() for name in ("VLM", "PRIOR", "COMPANION"))
            if key not in built:
                built[key] = build(cfg, **options)
            return built[key]

        return build_or_share

    monkeypatch.setattr(ovrs.segmenter, "build_towers", sharing(build_towers))


@functools.cache
def loaded(name):
    return load_config(name)


@pytest.fixture(params=[*FILES, *ROWS])
def shipped(request):
    return loaded(request.param).clone()


def test_there_are_configurations():
    assert "Base-OVRS.yaml" in FILES
    assert len(FILES) > 1
    assert "papers/dr_seg.yaml:table6/k_20" in ROWS
    assert len(ROWS) > 100


@pytest.mark.usefixtures("build_once")
def test_shipped_configuration_builds_a_model(shipped):
    if shipped.MODEL.VLM.NAME == "Sam3VLM":
        require_sam3()
    shipped.MODEL.WEIGHTS = "a checkpoint with all weights"  # so that none is fetched for the towers
    # Full-size models are built without memory; our own small ones hold a text tower that loads its weights.
    device = "cpu" if shipped.MODEL.VLM.ARCH.endswith(".json") else "meta"
    with torch.device(device):
        model = META_ARCH_REGISTRY.get(shipped.MODEL.META_ARCHITECTURE)(shipped)
    assert isinstance(model, OpenVocabSegmenter)
    trains = any(parameter.requires_grad for parameter in model.head.parameters())
    assert trains == model.head.needs_training


def test_shipped_configuration_names_weights_that_fit(shipped):
    vlm, prior = shipped.MODEL.VLM, shipped.MODEL.PRIOR
    named = {tower.WEIGHTS for tower in (vlm, prior, shipped.MODEL.COMPANION)} | {shipped.MODEL.WEIGHTS}
    assert named <= {"", *list_models()}, "nobody else has this local file"
    entry = find_entry(vlm.WEIGHTS, vlm.ARCH, "MODEL.VLM")
    assert choose_activation(vlm.ACTIVATION, vlm.WEIGHTS, entry, "gelu") in ("gelu", "quick_gelu")
    find_entry(prior.WEIGHTS, prior.ARCH, "MODEL.PRIOR")


def test_shipped_configuration_names_known_data_sets(shipped):
    known = {f"{card.name}_{split}" for card in built_in_cards() for split in card.splits}
    known |= {alias for card in built_in_cards() for alias in card.aliases}
    wanted = {name for key in ("TRAIN", "TEST", "VAL") for name in shipped.DATASETS[key]}
    assert {name for name in wanted if not name.startswith("output/demo/scenes/")} <= known


@pytest.mark.parametrize("name", ROWS)
def test_remoteclip_computes_quick_gelu_in_every_published_row(name):
    model = loaded(name).MODEL
    towers = [tower for tower in (model.VLM, model.COMPANION) if tower.WEIGHTS.startswith("remoteclip/")]
    assert {tower.ACTIVATION for tower in towers} <= {"quick_gelu"}
