"""CAT-Seg's aggregator over a prior's patches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from head_inputs import PRIOR, VLM, random_inputs, small
from torch import nn

from ovrs.errors import ConfigError
from ovrs.heads import CATSegHead, DinoCostHead
from ovrs.structures import TowerFeatures

TOWERS = {"vlm": VLM, "prior": PRIOR}


@torch.no_grad()
def test_patches_in_the_place_of_clips_give_what_cat_seg_gives():
    """With the same features, nothing to align and no guidance the two are one."""
    prior = replace(PRIOR, width=VLM.joint_dim)
    head = small(DinoCostHead, {"vlm": VLM, "prior": prior}, alignment="none", use_prior_taps=False, num_layers=2)
    other = small(CATSegHead, {"vlm": VLM}, use_vlm_taps=False, num_layers=2)
    other.load_state_dict(head.state_dict())
    features, text = random_inputs(head, VLM, prior)
    patches = features["prior"].dense
    expected = other({"vlm": TowerFeatures(dense=patches)}, text)
    torch.testing.assert_close(head(features, text), expected)


@torch.no_grad()
def test_result_is_on_the_priors_grid_and_the_other_image_tower_is_not_asked():
    head = small(DinoCostHead, TOWERS, num_layers=1)
    requests = head.requests()
    assert (requests["vlm"].dense, requests["vlm"].blocks) == ("none", ())
    assert (requests["prior"].dense, len(requests["prior"].blocks)) == ("final_norm", 2)
    assert head(*random_inputs(head, images=1)).shape == (1, 3, 48, 48)  # 12 x 12 cells


def test_alignment_is_learned():
    head = small(DinoCostHead, TOWERS, num_layers=1).train()
    head(*random_inputs(head)).square().mean().backward()
    assert isinstance(head.align, nn.Conv2d)
    assert head.align.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("towers", "options", "words"),
    [
        (TOWERS, {"alignment": "none"}, "patches are 20 wide and words 16: set it to 'learned'"),
        (TOWERS, {"use_vlm_taps": True}, "use USE_PRIOR_TAPS"),
        ({"vlm": VLM}, {}, r"MODEL\.PRIOR\.NAME"),
    ],
)
def test_what_cannot_work_is_refused(towers: dict, options: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        small(DinoCostHead, towers, **options)
