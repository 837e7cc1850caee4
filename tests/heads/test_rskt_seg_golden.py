"""The published RSKT-Seg: its size, what it trains, and the outputs of the official implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from golden_case import (
    assert_equals_golden,
    assert_labels_equal_golden,
    published_config,
    read_golden,
    recorded_image,
    training_loss,
    watched,
    with_recorded_weights,
    without_numbers,
)

from ovrs.segmenter import OpenVocabSegmenter

FILES = "rskt_seg_vitb16"


def published(arch: str, input_size: int, layers: int) -> CfgNode:
    cfg = published_config("RSKTSegHead")
    cfg.MODEL.VLM.ARCH, cfg.MODEL.VLM.INPUT_SIZE = arch, input_size
    cfg.MODEL.RSKT_SEG.NUM_LAYERS = layers
    return cfg


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_golden(FILES)


@pytest.fixture(scope="module")
def model() -> OpenVocabSegmenter:
    """The published model with the weights of the recording: more than a gigabyte."""
    return with_recorded_weights(published_config("RSKTSegHead"), FILES)


@pytest.mark.parametrize(
    ("arch", "input_size", "layers", "trained", "whole"),
    [
        ("ViT-B-16", 384, 3, 32.6, 398.9),
        ("ViT-B-16", 384, 5, 34.3, 400.6),
        ("ViT-L-14-336", 336, 2, 77.7, 678.3),
        ("ViT-L-14-336", 336, 5, 80.2, 680.8),
    ],
)
def test_model_has_the_published_number_of_parameters(
    arch: str, input_size: int, layers: int, trained: float, whole: float
):
    model = without_numbers(published(arch, input_size, layers))
    millions = {
        train_only: sum(p.numel() for p in model.parameters() if p.requires_grad or not train_only) / 1e6
        for train_only in (True, False)
    }
    assert millions[True] == pytest.approx(trained, abs=0.051)
    # RemoteCLIP's text tower, which nothing reads, is not ours: blocks, embeddings, norm and projection of width 512.
    text = (12 * (12 * 512**2 + 13 * 512) + (49_408 + 77) * 512 + 2 * 512 + 512**2 + 1) / 1e6
    assert millions[False] == pytest.approx(whole - text, abs=0.051)


@pytest.mark.heavy
@torch.inference_mode()
def test_whole_image_inference_equals_the_official_model_at_every_stage(
    model: OpenVocabSegmenter, golden: dict[str, Any]
):
    meta = golden["meta"]
    with watched(model) as stages:
        result = model([{"image": recorded_image(meta), "vocabulary": meta["classes"]}])[0]
    assert stages.pop("clip_dense").shape == stages.pop("dino_down").shape == (1, 512, 24, 24)  # not recorded
    assert set(stages) == {"text", "agg0", "agg1", "agg2", "logits"}
    for name, value in {**stages, "output": result["sem_seg"]}.items():
        assert_equals_golden(name, value, golden[name])
    assert_labels_equal_golden(result["labels"], golden["argmax"])


@pytest.mark.heavy
@torch.no_grad()
def test_loss_equals_the_official_model(model: OpenVocabSegmenter, golden: dict[str, Any]):
    assert training_loss(model, golden["meta"]).item() == pytest.approx(golden["train_loss"].item(), rel=1e-4)
