"""Every configuration that is shipped can be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY

from ovrs.backbones import CATALOGUE
from ovrs.backbones.weights import choose_activation, find_entry
from ovrs.config import load_config
from ovrs.segmenter import OpenVocabSegmenter

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(FOLDER.rglob("*.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def shipped(request):
    return load_config(request.param)


def test_there_are_configurations():
    assert FOLDER / "Base-OVRS.yaml" in FILES
    assert len(FILES) > 1


def test_shipped_configuration_builds_a_model(shipped):
    shipped.MODEL.WEIGHTS = "a checkpoint with all weights"  # so that none is fetched for the towers
    # Full-size models are built without memory; our own small ones hold a text tower that loads its weights.
    device = "cpu" if shipped.MODEL.VLM.ARCH.endswith(".json") else "meta"
    with torch.device(device):
        model = META_ARCH_REGISTRY.get(shipped.MODEL.META_ARCHITECTURE)(shipped)
    assert isinstance(model, OpenVocabSegmenter)
    assert any(parameter.requires_grad for parameter in model.head.parameters())
    for tower in filter(None, (model.vlm, model.prior)):
        assert tower.spec.input_size % tower.spec.patch_size == 0, "pixels at the border would not be seen"


def test_shipped_configuration_names_weights_that_fit(shipped):
    vlm, prior = shipped.MODEL.VLM, shipped.MODEL.PRIOR
    assert {vlm.WEIGHTS, prior.WEIGHTS} <= {"", *CATALOGUE}, "nobody else has this local file"
    entry = find_entry(vlm.WEIGHTS, vlm.ARCH, "MODEL.VLM")
    assert choose_activation(vlm.ACTIVATION, vlm.WEIGHTS, entry, "gelu") in ("gelu", "quick_gelu")
    find_entry(prior.WEIGHTS, prior.ARCH, "MODEL.PRIOR")
