"""Compiled and recorded passes give what eager ones give."""

from __future__ import annotations

import pytest
import torch
from demo_models import CLASSES, DEMO, demo_model
from devices import DEVICES, ON_A_CARD
from records import training_record

from ovrs.inference import compile_for_inference, copied, tensors_of, with_tensors


@pytest.fixture(autouse=True)
def _no_compiled_code() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", DEMO)
@torch.inference_mode()
def test_a_head_and_the_blocks_of_towers_are_traced_in_one_piece(name: str, precision: str):
    model = demo_model(name, precision=precision)
    images, vocabulary = torch.randn(1, 3, 96, 96), model.vocabulary(CLASSES)
    expected = model.classify(model.embed(images), vocabulary)
    modules = [block for tower in model.towers.values() for block in tower.equal_blocks()]
    torch._dynamo.utils.counters.clear()
    compile_for_inference([model.head, *modules], backend="eager", fullgraph=True)
    assert torch.equal(model.classify(model.embed(images), vocabulary), expected)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 1 + len({type(block) for block in modules})  # equal blocks share one


def test_training_is_not_compiled():
    model = demo_model("gsnet", "cpu", TEST__COMPILE="all")
    torch._dynamo.utils.counters.clear()
    model.train()([training_record(CLASSES, size=(96, 96))])["loss_sem_seg"].backward()
    assert not torch._dynamo.utils.counters["stats"]


@torch.inference_mode()
def test_tensors_of_features_can_be_exchanged():
    model = demo_model("rskt_seg", "cpu")
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
    eager, compiled = demo_model(name, device), demo_model(name, device, TEST__COMPILE="all")
    images = torch.randn(2, 3, 96, 96).to(device)
    expected, found = (model.classify(model.embed(images), model.vocabulary(CLASSES)) for model in (eager, compiled))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DEMO)
@torch.inference_mode()
def test_recorded_passes_equal_eager_ones_and_follow_weights_and_classes(name: str, device: str):
    eager, recorded = demo_model(name, device), demo_model(name, device, TEST__CUDA_GRAPHS=True)
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
