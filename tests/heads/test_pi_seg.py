"""Pi-Seg: CAT-Seg to the digit at inference, noisy in training."""

from __future__ import annotations

import pytest
import torch
from head_inputs import VLM, random_inputs, small

from ovrs.heads import CATSegHead, PiSegHead
from ovrs.heads.pi_seg import _DRAW

KINDS = ["gaussian", "laplace", "uniform", "gumbel", "student_t"]


@torch.no_grad()
def test_inference_is_cat_seg():
    head, plain = small(PiSegHead, {"vlm": VLM}), small(CATSegHead, {"vlm": VLM})
    plain.load_state_dict(head.state_dict(), strict=False)
    inputs = random_inputs(head)
    assert torch.equal(head(*inputs), plain(*inputs))


@pytest.mark.parametrize(("text", "pixel"), [(kind, "none") for kind in KINDS] + [("none", kind) for kind in KINDS])
def test_training_is_noisy_and_learns_the_noise(text: str, pixel: str):
    head = small(PiSegHead, {"vlm": VLM}, text_noise=text, pixel_noise=pixel).train()
    inputs = random_inputs(head)
    first, second = head(*inputs), head(*inputs)
    assert (first - second).abs().max() > 1e-4
    first.square().mean().backward()
    learned = [head.text_shift] if pixel == "none" else [head.pixel_shift.weight, head.attention.in_proj_weight]
    assert all(parameter.grad.abs().max() > 0 for parameter in learned)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_its_distribution(kind: str):
    sample = _DRAW[kind](torch.zeros(200_000)).double()
    mean, inside = {
        "gaussian": (0.0, 0.6827),
        "laplace": (0.0, 0.6321),
        "uniform": (0.0, 1.0),
        "gumbel": (0.5772, 0.6262),
        "student_t": (0.0, 0.6090),
    }[kind]
    assert sample.mean().item() == pytest.approx(mean, abs=0.02)
    assert (sample.abs() <= 1).double().mean().item() == pytest.approx(inside, abs=0.01)


def test_without_noise_training_is_cat_segs():
    head = small(PiSegHead, {"vlm": VLM}, text_noise="none", pixel_noise="none").train()
    inputs = random_inputs(head)
    assert torch.equal(head(*inputs), head(*inputs))
