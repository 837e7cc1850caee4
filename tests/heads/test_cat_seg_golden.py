"""The published CAT-Seg: its size, what it trains, and the outputs of the official implementation.

The always-run test looks at the global view, one of the five crops; the heavy ones at everything.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_case import (
    assert_equals_golden,
    assert_labels_equal_golden,
    published_config,
    read_golden,
    read_json,
    recorded_image,
    training_loss,
    watched,
    with_recorded_weights,
    without_numbers,
)

from ovrs.segmenter import OpenVocabSegmenter
from ovrs.zoo import LAYOUTS

CAT_SEG = LAYOUTS["CAT-Seg"]
FILES = "cat_seg_vitb16"
GLOBAL_VIEW = 4  # of the five crops


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_golden(FILES)


@pytest.fixture(scope="module")
def model() -> OpenVocabSegmenter:
    """The published model with the weights of the recording: most of a gigabyte."""
    cfg = published_config("CATSegHead")
    cfg.MODEL.CAT_SEG.POOLING_TRAIN = 1  # as recorded
    return with_recorded_weights(cfg, FILES)


def test_trained_parameters_are_the_official_ones():
    model = without_numbers(published_config("CATSegHead"))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    official = set(CAT_SEG.to_official(trained))
    clip = "sem_seg_head.predictor.clip_model."
    manifest = read_json(f"{FILES}_manifest")
    in_clip = {n for n in manifest if n.startswith(clip) and n.endswith(("attn.q_proj_weight", "attn.v_proj_weight"))}
    assert len(in_clip) == 48
    assert official == in_clip | {name for name in manifest if not name.startswith(clip)}


@torch.inference_mode()
def test_global_view_equals_the_official_model_at_every_stage(model: OpenVocabSegmenter, golden: dict[str, Any]):
    image = model.normalise(recorded_image(golden["meta"]))
    view = F.interpolate(image[None], size=(384, 384), mode="bilinear", align_corners=False)
    with watched(model) as stages:
        model.classify(model.embed(view), model.vocabulary(golden["meta"]["classes"]))
    assert stages.pop("clip_dense").shape == (1, 512, 24, 24)  # not recorded
    assert set(stages) == {"text", "agg0", "agg1", "logits"}
    for name, value in stages.items():
        expected = golden[name] if name == "text" else golden[name][GLOBAL_VIEW : GLOBAL_VIEW + 1]
        assert_equals_golden(name, value, expected)


@pytest.mark.heavy
@torch.inference_mode()
def test_sliding_inference_equals_the_official_model_at_every_stage(model: OpenVocabSegmenter, golden: dict[str, Any]):
    meta = golden["meta"]
    with watched(model) as stages:
        result = model([{"image": recorded_image(meta), "vocabulary": meta["classes"]}])[0]
    del stages["clip_dense"]
    for name, value in {**stages, "output": result["sem_seg"]}.items():
        assert_equals_golden(name, value, golden[name])
    assert_labels_equal_golden(result["labels"], golden["argmax"])


@pytest.mark.heavy
@torch.no_grad()
def test_loss_equals_the_official_model(model: OpenVocabSegmenter, golden: dict[str, Any]):
    assert training_loss(model, golden["meta"]).item() == pytest.approx(golden["train_loss"].item(), rel=1e-4)
