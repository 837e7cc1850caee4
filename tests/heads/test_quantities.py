"""What heads show of their inside: the recorded values are those of the pass, and the pass is not changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from head_checks import assert_close
from head_inputs import VLM as NARROW_VLM
from head_inputs import (
    RandomLastBlock,
    choose_classes,
    configured,
    filled,
    random_inputs,
    small_dr_seg,
    small_head,
)
from test_every_head import NAMES, TOWERS, build, inputs_of
from torch import Tensor, nn

from ovrs.heads import ClipAttentionHead, Head, Quantity, all_quantities, output_of, recording
from ovrs.heads.blocks.class_attention import ClassAttention
from ovrs.heads.blocks.clip_attention import attend
from ovrs.heads.blocks.efficient import ClassFusion
from ovrs.heads.quantities import SHAPES
from ovrs.structures import TowerRequest

# Which axes of a value, after the batch, are classes.
CLASS_AXES = {"class_maps": (1,), "class_features": (1,), "class_relations": (1, 2), "class_values": (1,)}


def recorded(head: Head, inputs: tuple, wanted: dict[str, Quantity] | None = None) -> dict[str, Tensor]:
    with recording(head, all_quantities(head) if wanted is None else wanted) as found:
        head(*inputs)
    (values,) = found
    return values


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_recording_changes_no_digit_and_leaves_nothing_behind(name: str, short: bool):
    head = build(name)
    inputs = inputs_of(head)
    with torch.autocast("cpu", torch.bfloat16, enabled=short):
        before = head(*inputs)
        with recording(head, all_quantities(head)) as found:
            during = head(*inputs)
        after = head(*inputs)
    assert len(found) == 1
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert not any(module._forward_hooks for module in head.modules())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_quantity_has_the_shape_of_its_kind_and_permutes_with_classes(name: str):
    head = build(name, class_chunk=2)
    features, text = inputs_of(head, classes=5)
    order = [3, 0, 4, 2, 1]
    shown = all_quantities(head)
    values = recorded(head, (features, text))
    permuted = recorded(head, (features, choose_classes(text, order)))
    assert list(values) == list(shown)
    assert "scores" in values
    assert len(values) > 1
    for key, quantity in shown.items():
        value, other = values[key], permuted[key]
        shape = SHAPES[quantity.kind].partition(":")[0]
        assert value.dim() == 1 + shape.count(",") + 1, key
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all(), key
        for axis in CLASS_AXES.get(quantity.kind, ()):
            assert value.shape[axis] == 5, key
            value = value.index_select(axis, torch.tensor(order))
        assert_close(other, value)


@torch.no_grad()
def test_recording_fails_with_its_block_and_takes_its_hooks_away():
    head = build("GSNetHead")
    with pytest.raises(RuntimeError, match="inside"), recording(head, all_quantities(head)):
        raise RuntimeError("inside")
    assert not any(module._forward_hooks for module in head.modules())


def test_scores_are_the_probabilities_of_the_rule():
    head = build("HGRSOVSSegHead")
    inputs = inputs_of(head)
    with torch.no_grad():
        assert_close(recorded(head, inputs)["scores"], head(*inputs).softmax(dim=1))


@torch.no_grad()
def test_streams_of_gsnet_are_what_its_fusion_gets():
    head = small_head()
    inputs = random_inputs(head)
    features, text = inputs
    values = recorded(head, inputs)
    unit = F.normalize(features["vlm"].dense, dim=1)
    assert_close(values["correlation"], torch.einsum("bchw,tc->bthw", unit, text.mean))
    fused = head.fusion.costs(values["correlation"][:, :, None], values["prior_correlation"][:, :, None])
    assert_close(values["fused"], fused)


@torch.no_grad()
def test_what_dr_seg_shows_adds_up():
    head = small_dr_seg()
    inputs = random_inputs(head)
    values = recorded(head, inputs)
    unit = F.normalize(inputs[0]["vlm"].dense, dim=1)
    plain = torch.einsum("bchw,tc->bthw", unit, inputs[1].mean)
    assert_close(values["semantic_correlation"] + values["structural_correlation"], plain)
    turns = [values[f"correlation_{angle}"] for angle in (0, 90, 180, 270)]
    assert_close(values["correlation"], torch.stack(turns).mean(dim=0))

    # The gated refined cost and the rotations give the recorded cost maps (Eq. 11 to 13).
    gated = values["gate"][:, None, None] * values["refined_correlation"][:, :, None]
    assert_close(values["fused"], head.fusion(torch.stack(turns, dim=2), gated))
    cost = torch.stack(turns, dim=2)
    assert_close(values["uncertainty"], head.gate.uncertainty(cost)[:, 0])


@torch.no_grad()
def test_neighbours_of_dr_seg_are_the_highest_affinities_and_the_cell_itself():
    head = small_dr_seg(pdgr={"topk": 7, "edge_hidden": 12})
    values = recorded(head, random_inputs(head))
    weights, affine = (values[name].flatten(3).flatten(1, 2) for name in ("neighbours", "affinity"))  # [B, N, N]
    listed = weights > 0
    itself = torch.eye(weights.shape[1], dtype=torch.bool)
    assert listed[:, itself].all()
    others = listed & ~itself
    assert (others.sum(dim=2) == 7).all()
    least = affine.masked_fill(~others, torch.inf).amin(dim=2)
    assert (affine.masked_fill(listed, -torch.inf).amax(dim=2) <= least).all()


@pytest.mark.parametrize("pad_to", [0, 16])
@pytest.mark.parametrize("kind", ["linear", "full"])
@torch.no_grad()
def test_class_attention_shows_the_weights_that_it_uses(kind: str, pad_to: int):
    block = filled(ClassAttention(12, 1, kind, pad_to))
    x, guidance = torch.randn(2, 5, 3, 4, 12), torch.randn(5, 12)
    weights = block.attention(x, guidance)
    normed = block.norm1(x)
    token = block.norm1(block.padding_tokens)
    expected = torch.einsum("btshw,bshwc->bthwc", weights, block.v(normed))
    expected = expected + (1 - weights.sum(dim=2))[..., None] * block.v(token)
    torch.testing.assert_close(block._attend(normed, guidance), expected, rtol=1e-4, atol=1e-4)
    assert pad_to or torch.allclose(weights.sum(dim=2), torch.ones(2, 5, 3, 4), atol=1e-4)


@torch.no_grad()
def test_class_fusion_shows_the_weights_that_it_uses():
    block = filled(ClassFusion(12, 1))
    x, guidance = torch.randn(2, 5, 4, 6, 12), torch.randn(5, 12)
    weights = block.attention(x, guidance, 1)
    normed = block.norm1(x)
    expected = block.proj(torch.einsum("btshw,bshwc->bthwc", weights, block.v(normed)))
    torch.testing.assert_close(block._attend(normed, guidance), expected, rtol=1e-4, atol=1e-5)
    assert block.attention(x, guidance, 2).shape == (2, 5, 5, 2, 3)


@pytest.mark.parametrize("kind", ["vanilla", "maskclip", "sclip", "clearclip", "naclip", "segearth"])
@torch.no_grad()
def test_attention_of_the_last_block_shows_the_weights_that_it_uses(kind: str):
    generator = torch.Generator().manual_seed(0)
    block = RandomLastBlock.of(NARROW_VLM, 2, (3, 4), generator)
    q, k, v = block.qkv()
    earlier = [(torch.randn(q.shape), torch.randn(q.shape))]
    every = torch.eye(q.shape[2]).expand(*q.shape[:2], -1, -1)
    weights = attend(kind, q, k, v, block.grid, 5.0, earlier, 0.6, every)
    assert_close(weights @ v, attend(kind, q, k, v, block.grid, 5.0, earlier, 0.6))


@torch.no_grad()
def test_features_before_and_after_the_upsampler_are_shown():
    head = configured(ClipAttentionHead, TOWERS, upsampler="jbu_one").eval()
    features, text = inputs_of(head, images=1)
    features["vlm"] = replace(features["vlm"], pixels=torch.randn(1, 3, 96, 96))
    values = recorded(head, (features, text))
    assert values["upsampled"].shape[-1] == 16 * values["coarse"].shape[-1]
    assert values["attention"].shape == (1, 6, 6, 6, 6)


class OneFileHead(Head):
    """A head from outside the package; it names one thing of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.twice.weight, 2.0)

    def requests(self):
        return {"vlm": TowerRequest(dense="class_residual")}

    def forward(self, features, text):
        cosines = torch.einsum("bchw,tc->bthw", features["vlm"].dense, text.mean)
        # Two classes at most at once, and the result is changed in place.
        parts = [self.twice(part.flatten(0, 1)[:, None]) for part in cosines.split(2, dim=1)]
        parts = [part.squeeze(1).unflatten(0, (len(cosines), -1)) for part in parts]
        return torch.cat(parts, dim=1).add_(1)

    def quantities(self):
        return {"doubled": output_of(self.twice, "class_maps", "twice the product")}


@torch.no_grad()
def test_head_from_outside_shows_its_scores_and_what_it_names():
    head = OneFileHead()
    features, text = random_inputs(head, classes=1, images=1)
    values = recorded(head, (features, text))
    assert set(values) == {"scores", "doubled", "vlm_features"}
    assert_close(values["scores"], head(features, text).sigmoid())
    assert_close(values["doubled"], head(features, text) - 1)
    torch.testing.assert_close(values["vlm_features"], features["vlm"].dense)
