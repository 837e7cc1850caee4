"""What every head of the CAT-Seg family keeps to: classes, images and features are treated alike."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import pytest
import torch
from head_checks import assert_close
from head_inputs import (
    choose_classes,
    choose_images,
    random_inputs,
    small_cat_seg,
    small_dr_seg,
    small_head,
    small_rskt_seg,
)

from ovrs.heads import Head

# How to build each head, and how many features it reads.
HEADS = {
    "cat_seg": (small_cat_seg, 4),  # dense map, two blocks, text
    "gsnet": (small_head, 7),  # and the prior's dense map and two blocks
    "rskt_seg": (small_rskt_seg, 13),  # and four rotated maps and the companion's two blocks
    "dr_seg": (small_dr_seg, 9),  # without the companion, and of the prior the last block alone
}


@pytest.fixture(params=HEADS)
def build(request) -> Callable[..., Head]:
    return HEADS[request.param][0]


@torch.no_grad()
def test_logits_permute_with_classes(build):
    head = build()
    image, text, prior = random_inputs(head, classes=5)
    order = [3, 0, 4, 2, 1]
    assert_close(head(image, choose_classes(text, order), prior), head(image, text, prior)[:, order])


@pytest.mark.parametrize("chunk", [1, 3, 5, 0])
@torch.no_grad()
def test_logits_do_not_depend_on_the_class_chunk(build, chunk):
    head = build(class_chunk=1000)
    inputs = random_inputs(head, classes=5)
    expected = head(*inputs)
    seen = []
    head.decoder.stages[0].register_forward_hook(lambda module, given, output: seen.append(given[0].shape[1]))
    head.class_chunk = chunk
    torch.testing.assert_close(head(*inputs), expected, rtol=1e-4, atol=1e-5)
    assert chunk == 0 or max(seen) == chunk


@torch.no_grad()
def test_batch_of_three_equals_three_single_images(build):
    head = build()
    inputs = random_inputs(head, images=3)
    singles = torch.cat([head(*choose_images(inputs, index)) for index in range(3)])
    torch.testing.assert_close(head(*inputs), singles, rtol=1e-4, atol=1e-5)
    assert (singles[0] - singles[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_logits_depend_on_every_feature_that_was_asked_for(name):
    build, count = HEADS[name]
    head = build()
    image, text, prior = random_inputs(head)
    before = head(image, text, prior)
    features = [image.dense, *chain(image.blocks.values(), image.companion.values()), text.embeddings]
    if image.rotated is not None:
        features += image.rotated.unbind(1)
    if prior is not None:
        features += [*prior.blocks.values()] if name == "dr_seg" else [prior.dense, *prior.blocks.values()]
    assert len(features) == count
    for feature in features:
        original = feature.clone()
        feature.add_(torch.randn_like(feature))
        assert (head(image, text, prior) - before).abs().max() > 1e-3
        feature.copy_(original)


@torch.no_grad()
def test_bf16_stays_close_to_fp32(build):
    head = build()
    inputs = random_inputs(head)
    exact = head(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = head(*inputs).float()
    assert 0 < (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()
