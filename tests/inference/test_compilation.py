"""Compiled and recorded passes give what eager ones give."""

from __future__ import annotations

import pytest
import torch
from devices import DEVICES, ON_A_CARD
from records import training_record
from test_copies import CLASSES, DEMO, demo_model

from ovrs.inference import compile_for_inference, copied, tensors_of, with_tensors
from ovrs.segmenter import OpenVocabSegmenter


def fp32_model(name: str, device: str, **keys: object) -> OpenVocabSegmenter:
    from ovrs.config import load_config
    from ovrs.engine import build_model

    cfg = load_config(f"demo/{name}")
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.DR_SEG.SPSD.SELECT, cfg.MODEL.PRECISION.TF32 = device, "random", False
    for key, value in keys.items():
        cfg.TEST[key] = value
    torch.manual_seed(0)
    return build_model(cfg, load_towers=False).eval()


@pytest.fixture(autouse=True)
def _no_compiled_code() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", DEMO)
@torch.inference_mode()
def test_a_head_and_the_blocks_of_towers_are_traced_in_one_piece(name: str, bf16: bool):
    model = demo_model(name, True, "cpu") if bf16 else fp32_model(name, "cpu")
    images, vocabulary = torch.randn(1, 3, 96, 96), model.vocabulary(CLASSES)
    expected = model.classify(model.embed(images), vocabulary)
    modules = [block for tower in model.towers.values() for block in tower.equal_blocks()]
    torch._dynamo.utils.counters.clear()
    compile_for_inference([model.head, *modules], backend="eager", fullgraph=True)
    assert torch.equal(model.classify(model.embed(images), vocabulary), expected)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 1 + len({type(block) for block in modules})  # equal blocks share one


def test_training_is_not_compiled():
    model = fp32_model("gsnet", "cpu", COMPILE="all")
    torch._dynamo.utils.counters.clear()
    model.train()([training_record(CLASSES, size=(96, 96))])["loss_sem_seg"].backward()
    assert not torch._dynamo.utils.counters["stats"]


@torch.inference_mode()
def test_tensors_of_features_can_be_exchanged():
    model = fp32_model("rskt_seg", "cpu")
    features = model.embed(torch.randn(1, 3, 96, 96))
    tensors = tensors_of(features)
    assert len(tensors) > len(features)
    doubled = with_tensors(features, [2 * tensor for tensor in tensors])
    for old, new, copy in zip(tensors, tensors_of(doubled), tensors_of(copied(features)), strict=True):
        assert torch.equal(2 * old, new)
        assert torch.equal(old, copy)
        assert old.data_ptr() != copy.data_ptr()


@pytest.mark.heavy
@torch.inference_mode()
def test_compiled_equals_eager_on_a_cpu():
    _compiled_equals_eager("gsnet", "cpu")


@ON_A_CARD
@pytest.mark.gpu
@pytest.mark.parametrize("name", DEMO)
@torch.inference_mode()
def test_compiled_equals_eager_on_a_gpu(name: str):
    _compiled_equals_eager(name, "cuda")


def _compiled_equals_eager(name: str, device: str) -> None:
    eager, compiled = fp32_model(name, device), fp32_model(name, device, COMPILE="all")
    images = torch.randn(2, 3, 96, 96).to(device)
    expected, found = (model.classify(model.embed(images), model.vocabulary(CLASSES)) for model in (eager, compiled))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DEMO)
@torch.inference_mode()
def test_recorded_passes_equal_eager_ones_and_follow_weights_and_classes(name: str, device: str):
    eager, recorded = fp32_model(name, device), fp32_model(name, device, CUDA_GRAPHS=True)
    for step, classes in enumerate((CLASSES, CLASSES, CLASSES[:3], CLASSES)):
        images = torch.randn(2, 3, 96, 96).to(device)
        if step == 3:
            for model in (eager, recorded):
                for parameter in model.parameters():
                    parameter.mul_(1.01)
        expected, found = (
            model.classify(model.embed(images), model.vocabulary(classes)) for model in (eager, recorded)
        )
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
