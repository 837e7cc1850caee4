"""Copies of weights in the short type: the same bits, fewer casts, and nothing left behind."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
import torch
from demo_models import CLASSES, DEMO, demo_model
from detectron2.config import CfgNode
from devices import DEVICES
from records import picture, training_record
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ovrs.inference import ShortWeights
from ovrs.segmenter import OpenVocabSegmenter


class Operations(TorchDispatchMode):
    """Counts what is computed inside the block, by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))

    @property
    def casts(self) -> int:
        return self.counts["to"] + self.counts["_to_copy"]


def bf16(cfg: CfgNode, copies: bool = True) -> CfgNode:
    cfg.MODEL.PRECISION.TOWERS = cfg.MODEL.PRECISION.HEAD = "bf16"
    cfg.MODEL.PRECISION.WEIGHT_COPIES = copies
    return cfg


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", DEMO)
@torch.inference_mode()
def test_copies_change_no_bit_and_save_most_casts(name: str, device: str):
    images = torch.randn(2, 3, 96, 96).to(device)
    logits, casts = [], []
    for copies in (False, True):
        model = demo_model(name, device, "bf16", MODEL__PRECISION__WEIGHT_COPIES=copies)
        vocabulary = model.vocabulary(CLASSES)
        model.classify(model.embed(images), vocabulary)
        with Operations() as seen:
            logits.append(model.classify(model.embed(images), vocabulary))
        casts.append(seen.casts)
    assert torch.equal(*logits)
    assert casts[1] < casts[0] / 2


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def segment(model: OpenVocabSegmenter) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()([{"image": picture(), "vocabulary": CLASSES}])[0]["scores"]


def test_parameters_are_themselves_again_after_every_pass(tiny_cfg: CfgNode):
    model = OpenVocabSegmenter(bf16(tiny_cfg))
    before = weights_of(model)
    seen = []
    model.head.decoder.predictor.register_forward_pre_hook(lambda module, _: seen.append(module.weight.dtype))
    segment(model)
    assert set(seen) == {torch.bfloat16}
    model.head.decoder.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        segment(model)
    after = weights_of(model)
    assert all(after[name] is parameter for name, parameter in before.items())
    assert {parameter.dtype for parameter in after.values()} == {torch.float32}


def test_copies_follow_the_weights(tiny_cfg: CfgNode):
    model = OpenVocabSegmenter(bf16(tiny_cfg))
    plain = OpenVocabSegmenter(bf16(tiny_cfg, copies=False))
    for change in ("loaded", "in place", "moved", "trained"):
        if change == "loaded":
            plain.load_state_dict({name: torch.randn_like(v) * 0.1 for name, v in plain.state_dict().items()})
        elif change == "in place":
            with torch.no_grad():
                plain.head.decoder.predictor.weight.mul_(2)
        elif change == "moved":
            plain.double().float()
            plain.head.decoder.predictor.weight.data = plain.head.decoder.predictor.weight.data * 3
        else:
            plain.train()([training_record(CLASSES)])["loss_sem_seg"].backward()
            torch.optim.SGD(plain.parameters(), lr=0.1, fused=True).step()
        before = segment(model)
        if change == "trained":
            model.train()([training_record(CLASSES)])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights_of(plain)[name])
        now = segment(model)
        assert torch.equal(now, segment(plain)), change
        assert not torch.equal(now, before), change


def test_training_reads_the_weights_themselves(tiny_cfg: CfgNode):
    model = OpenVocabSegmenter(bf16(tiny_cfg)).train()
    seen: dict[str, set[torch.dtype]] = {}
    watched = {"head": model.head.decoder.predictor, "trained": model.vlm.clip.visual.conv1, "frozen": model.prior.vit}
    watched["frozen"] = model.prior.vit.blocks[0].mlp.fc1
    for name, module in watched.items():
        module.register_forward_pre_hook(
            lambda module, _, name=name: seen.setdefault(name, set()).add(module.weight.dtype)
        )
    model([training_record(CLASSES)])["loss_sem_seg"].backward()
    assert seen == {"head": {torch.float32}, "trained": {torch.float32}, "frozen": {torch.bfloat16}}


def test_blocks_with_exact_weights_and_other_parameters_are_left_alone():
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Sequential(nn.Conv2d(1, 1, 1)), nn.Linear(2, 2))
    module[2].exact_weights = True
    with ShortWeights(module, [*module[:3].parameters()], torch.bfloat16)():
        types = {name: parameter.dtype for name, parameter in module.named_parameters()}
    short = {name for name, dtype in types.items() if dtype == torch.bfloat16}
    assert short == {"0.weight", "0.bias"}


def test_threads_share_the_copies():
    module = nn.Linear(2, 2)
    weight, copies = module.weight, ShortWeights(module, module.parameters(), torch.bfloat16)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with copies():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with copies():
        thread.start()
        inside.wait()
    assert module.weight.dtype == torch.bfloat16  # the other one is still at work
    leave.set()
    thread.join()
    assert module.weight is weight
