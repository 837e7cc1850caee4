"""What every registered head keeps to: classes, images and features are treated alike."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from head_checks import assert_close
from head_inputs import COMPANION, PRIOR, Inputs, choose_classes, choose_images, random_inputs, small

from ovrs.config import get_cfg
from ovrs.config.options import options_node, read_options
from ovrs.heads import Head, list_heads
from ovrs.heads.base import ACTIVATIONS
from ovrs.structures import TowerSpec

# A joint space that is wide enough for the decoder of HG-RSOVSSeg.
VLM = TowerSpec(width=24, depth=6, patch_size=16, input_size=96, joint_dim=48)
TOWERS = {"vlm": VLM, "prior": PRIOR, "companion": COMPANION}
NAMES = [name for name in list_heads() if SEM_SEG_HEADS_REGISTRY.get(name).__module__.startswith("ovrs.")]

TRAINED = [name for name in NAMES if SEM_SEG_HEADS_REGISTRY.get(name).needs_training]


def build(name: str, **context: object) -> Head:
    return small(SEM_SEG_HEADS_REGISTRY.get(name), TOWERS, **context)


def inputs_of(head: Head, **options: object) -> Inputs:
    return random_inputs(head, VLM, **options)


def test_published_heads_are_registered():
    assert {"CATSegHead", "DRSegHead", "GSNetHead", "HGRSOVSSegHead", "RSKTSegHead"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_options_of_the_configuration_are_those_of_the_class(name: str):
    kind = SEM_SEG_HEADS_REGISTRY.get(name)
    node = get_cfg().MODEL[kind.group]
    assert read_options(kind.options, node, kind.group) == kind.options()
    assert options_node(kind.options) == node
    assert all(item.metadata["meaning"] for item in fields(kind.options))


@pytest.mark.parametrize("name", NAMES)
def test_rule_is_one_that_some_loss_trains(name: str):
    assert SEM_SEG_HEADS_REGISTRY.get(name).rule.activation in ACTIVATIONS.values()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_permute_with_classes(name: str):
    head = build(name)
    features, text = inputs_of(head, classes=5)
    order = [3, 0, 4, 2, 1]
    assert_close(head(features, choose_classes(text, order)), head(features, text)[:, order])


@pytest.mark.parametrize("chunk", [1, 3, 5, 0])
@pytest.mark.parametrize("name", TRAINED)
@torch.no_grad()
def test_logits_do_not_depend_on_the_class_chunk(name: str, chunk: int):
    head = build(name, class_chunk=1000)
    inputs = inputs_of(head, classes=5)
    expected = head(*inputs)
    seen = []
    getattr(head.decoder, "stages", head.decoder)[0].register_forward_hook(
        lambda module, given, output: seen.append(given[0].shape[1])
    )
    head.class_chunk = chunk
    torch.testing.assert_close(head(*inputs), expected, rtol=1e-4, atol=1e-5)
    assert chunk == 0 or max(seen) == chunk


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_batch_of_three_equals_three_single_images(name: str):
    head = build(name)
    inputs = inputs_of(head, images=3)
    singles = torch.cat([head(*choose_images(inputs, index)) for index in range(3)])
    torch.testing.assert_close(head(*inputs), singles, rtol=1e-4, atol=1e-5)
    assert (singles[0] - singles[1]).abs().max() > 1e-3


# How many features each published head reads: dense maps, blocks, rotated maps and text.
COUNTS = {"CATSegHead": 4, "GSNetHead": 7, "RSKTSegHead": 13, "DRSegHead": 9, "HGRSOVSSegHead": 4}


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_depend_on_every_feature_that_was_asked_for(name: str):
    head = build(name)
    features, text = inputs_of(head)
    before = head(features, text)
    read = [text.embeddings if text.tokens is None else text.tokens.values]
    for tower in features.values():
        read += [tensor for tensor in (tower.dense, tower.token) if tensor is not None]
        read += [] if tower.last_block is None else [tower.last_block.input]
        read += [] if tower.concepts is None else tower.concepts.maps
        read += [*tower.blocks.values(), *(() if tower.rotated is None else tower.rotated.unbind(1))]
    assert len(read) == COUNTS.get(name, len(read))
    for feature in read:
        original = feature.clone()
        feature.add_(torch.randn_like(feature))
        fresh = choose_classes(text, list(range(text.classes)))  # means are kept with the features
        assert (head(features, fresh) - before).abs().max() > 1e-3
        feature.copy_(original)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_bf16_stays_close_to_fp32(name: str):
    head = build(name)
    inputs = inputs_of(head)
    exact = head(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = head(*inputs).float()
    assert 0 < (rounded - exact).abs().mean() < 0.05 * exact.abs().mean()
