"""The published GSNet: its size, what it trains, and the outputs of the official implementation.

The reference arrays come from the official code with weights made by ``golden/fill.py`` (name and shape in, numbers
out). The always-run tests look at the global view, one of the five crops; the heavy ones at everything.
"""

from __future__ import annotations

import re
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
    training_image,
    training_loss,
    watched,
    with_recorded_weights,
    without_numbers,
)

from ovrs.config import get_cfg
from ovrs.engine.optimizer import parameter_groups
from ovrs.inference import WholeImage
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.zoo import LAYOUTS

GSNET = LAYOUTS["GSNet"]
FILES = "gsnet_vitb16"
GLOBAL_VIEW = 4  # of the five crops


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_golden(FILES)


@pytest.fixture(scope="module")
def published() -> OpenVocabSegmenter:
    return without_numbers(published_config())


@pytest.fixture(scope="module")
def model() -> OpenVocabSegmenter:
    """The published model with the weights of the recording: about a gigabyte."""
    cfg = published_config()
    cfg.MODEL.GSNET.POOLING_TRAIN = 1  # as recorded
    return with_recorded_weights(cfg, FILES)


# ---------------------------------------------------------------------- size and training, without numbers


def test_model_has_the_published_number_of_parameters(published: OpenVocabSegmenter):
    def count(parameters: Any, trained: bool = False) -> int:
        return sum(p.numel() for p in parameters if p.requires_grad or not trained)

    assert count(published.parameters()) == 243_988_242
    assert count(published.parameters(), trained=True) == 29_006_865
    assert count(published.vlm.parameters()) == 149_620_737
    assert count(published.vlm.image_parameters(), trained=True) == 14_155_776
    assert count(published.vlm.text_parameters(), trained=True) == 6_291_456
    assert (count(published.prior.parameters()), count(published.prior.parameters(), trained=True)) == (85_807_872, 0)


def test_trained_parameters_are_the_official_ones(published: OpenVocabSegmenter):
    trained = {name: parameter for name, parameter in published.named_parameters() if parameter.requires_grad}
    official = set(GSNET.to_official(trained))
    in_clip = re.compile(r"sem_seg_head\.predictor\.clip_model\..*resblocks\.\d+\.attn\.[qv]_proj_weight")
    manifest = read_json(f"{FILES}_manifest")
    elsewhere = {n for n in manifest if not n.startswith(("dino_model.", "sem_seg_head.predictor.clip_model."))}
    assert official == elsewhere | {name for name in manifest if in_clip.fullmatch(name)}
    assert official == set(read_json(f"{FILES}_gradnorms"))
    assert len(official) == 194


def test_optimizer_groups_are_the_official_ones(published: OpenVocabSegmenter):
    groups = {
        (group["lr"], group["weight_decay"]): (len(group["params"]), sum(p.numel() for p in group["params"]))
        for group in parameter_groups(published, get_cfg())
    }
    rates = sorted(groups)
    assert rates == [(pytest.approx(2e-6), 1e-4), (pytest.approx(2e-4), 0.0), (pytest.approx(2e-4), 1e-4)]
    assert [groups[key] for key in rates] == [(48, 20_447_232), (36, 3_968), (110, 8_555_665)]


# ---------------------------------------------------------------------- one crop, always


@torch.inference_mode()
def test_global_view_equals_the_official_model_at_every_stage(model: OpenVocabSegmenter, golden: dict[str, Any]):
    image = model.normalise(recorded_image(golden["meta"]))
    view = F.interpolate(image[None], size=(384, 384), mode="bilinear", align_corners=False)
    with watched(model) as stages:
        model.classify(model.embed(view), model.vocabulary(golden["meta"]["classes"]))
    assert set(stages) == {"text", "clip_dense", "dino_down", "agg0", "agg1", "logits"}
    for name, value in stages.items():
        expected = golden[name] if name == "text" else golden[name][GLOBAL_VIEW : GLOBAL_VIEW + 1]
        assert_equals_golden(name, value, expected)


# ---------------------------------------------------------------------- everything, on demand


@pytest.mark.heavy
@torch.inference_mode()
def test_sliding_inference_equals_the_official_model_at_every_stage(model: OpenVocabSegmenter, golden: dict[str, Any]):
    meta = golden["meta"]
    with watched(model) as stages:
        result = model([{"image": recorded_image(meta), "vocabulary": meta["classes"]}])[0]
    for name, value in {**stages, "sliding": result["sem_seg"]}.items():
        assert_equals_golden(name, value, golden[name])
    assert_labels_equal_golden(result["labels"], golden["argmax"])


@pytest.mark.heavy
@torch.inference_mode()
def test_whole_image_inference_equals_the_official_model(
    model: OpenVocabSegmenter, golden: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    meta = golden["meta"]
    monkeypatch.setattr(model, "plan", WholeImage())
    result = model([{"image": training_image(meta), "vocabulary": meta["classes"]}])[0]
    assert_equals_golden("whole384", result["sem_seg"], golden["whole384"])


@pytest.mark.heavy
def test_loss_and_all_gradients_equal_the_official_model(model: OpenVocabSegmenter, golden: dict[str, Any]):
    model.zero_grad(set_to_none=True)
    loss = training_loss(model, golden["meta"])
    loss.backward()
    assert loss.item() == pytest.approx(golden["train_loss"].item(), rel=1e-4)

    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norms = {name: gradient.norm().item() for name, gradient in GSNET.to_official(gradients).items()}
    model.zero_grad(set_to_none=True)
    expected = read_json(f"{FILES}_gradnorms")
    # The value-only last block never reads its query weight; the official code gives it zeros, ours nothing.
    unread = "sem_seg_head.predictor.clip_model.visual.transformer.resblocks.11.attn.q_proj_weight"
    assert expected.pop(unread) == norms.pop(unread, 0.0) == 0.0
    assert set(norms) == set(expected)
    assert sum(norm > 1e-8 for norm in expected.values()) == 189
    for name, norm in expected.items():
        if norm > 1e-8:
            assert norms[name] == pytest.approx(norm, rel=1e-3), name
        else:
            assert norms[name] < 1e-7, name
