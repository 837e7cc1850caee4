"""What only a card can show; skipped elsewhere. ``pytest -m gpu`` runs these and the GPU halves of other tests."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from demo_models import CLASSES, DEMO, demo_model
from devices import DEVICES, ON_A_CARD
from heads.golden_case import (
    published_config,
    read_golden,
    recorded_form,
    recorded_image,
    watched,
    with_recorded_weights,
)
from records import training_record

from ovrs.heads.blocks import chunks
from ovrs.inference import apply_precision


@ON_A_CARD
@pytest.mark.gpu
@torch.inference_mode()
def test_global_view_on_a_gpu_equals_the_official_model():
    golden, cfg = read_golden("gsnet_vitb16"), published_config()
    cfg.MODEL.PRECISION.TF32 = False
    apply_precision(cfg)
    model = with_recorded_weights(cfg, "gsnet_vitb16").cuda()
    image = model.normalise(recorded_image(golden["meta"]))
    view = F.interpolate(image[None], size=(384, 384), mode="bilinear", align_corners=False)
    with watched(model) as stages:
        model.classify(model.embed(view), model.vocabulary(golden["meta"]["classes"]))
    for name, value in stages.items():
        expected = golden[name] if name == "text" else golden[name][4:5]
        error = abs(recorded_form(name, value.cpu()) - expected).max() / abs(expected).max()
        assert error < 1e-4, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DEMO)
@torch.inference_mode()
def test_every_device_gives_the_scores_of_the_cpu(name: str, device: str):
    images = torch.randn(2, 3, 96, 96)
    found = []
    for where in ("cpu", device):
        model = demo_model(name, where)
        found.append(model.classify(model.embed(images.to(where)), model.vocabulary(CLASSES)).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4 * float(found[0].abs().max()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DEMO)
def test_a_training_step_is_finite(name: str, device: str, precision: str):
    model = demo_model(name, device, precision).train()
    loss = model([training_record(CLASSES, seed, (96, 96)) for seed in (0, 1)])["loss_sem_seg"]
    loss.backward()
    assert loss.isfinite()
    gradients = [parameter.grad for parameter in model.head.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@ON_A_CARD
@pytest.mark.gpu
@pytest.mark.parametrize("name", DEMO)
@torch.inference_mode()
def test_class_chunks_keep_to_the_memory_that_is_free(name: str, monkeypatch: pytest.MonkeyPatch):
    model = demo_model(name, "cuda")
    features = model.embed(torch.randn(4, 3, 96, 96, device="cuda"))
    vocabulary = model.vocabulary([f"class {index}" for index in range(200)])
    monkeypatch.setattr(chunks, "free_memory", lambda index: 64 * 2**20)
    model.classify(features, vocabulary)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model.classify(features, vocabulary)
    small = torch.cuda.max_memory_allocated() - before
    monkeypatch.setattr(chunks, "free_memory", lambda index: 64 * 2**30)
    torch.cuda.reset_peak_memory_stats()
    model.classify(features, vocabulary)
    assert small < torch.cuda.max_memory_allocated() - before
