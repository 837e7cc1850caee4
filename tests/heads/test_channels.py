"""The split of the joint space into semantic and structural channels, and its way through checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch

from ovrs.heads.dr_seg.channels import ChannelSplit
from ovrs.heads.dr_seg.ranking_file import RankingError
from ovrs.zoo.state_dict import load_strictly

CHANNELS = 12


def some_order(seed: int = 0) -> torch.Tensor:
    return torch.randperm(CHANNELS, generator=torch.Generator().manual_seed(seed))


def make_split(order: torch.Tensor | None, semantic: int = 5) -> ChannelSplit:
    return ChannelSplit(order, CHANNELS, semantic, "ranking.npz")


@pytest.mark.parametrize("semantic", [0, 1, 5, CHANNELS])
def test_recomposing_undoes_the_split_bit_for_bit(semantic: int):
    split = make_split(some_order(), semantic)
    features = torch.randn(2, CHANNELS, 3, 4)
    parts = split.split(features)
    assert [part.shape[1] for part in parts] == [semantic, CHANNELS - semantic]
    assert torch.equal(split.recompose(*parts), features)


def test_semantic_channels_are_the_first_of_the_order():
    order = some_order()
    features = torch.arange(CHANNELS).float().view(1, -1, 1, 1)
    semantic, structural = make_split(order).split(features)
    assert semantic.flatten().tolist() == order[:5].tolist()
    assert structural.flatten().tolist() == order[5:].tolist()


def test_other_structural_channels_leave_the_semantic_ones_bit_for_bit():
    order = some_order()
    split, features = make_split(order), torch.randn(2, CHANNELS, 3, 4)
    semantic, structural = split.split(features)
    changed = split.recompose(semantic, structural + 1)
    assert torch.equal(changed[:, order[:5]], features[:, order[:5]])
    assert torch.equal(changed[:, order[5:]], features[:, order[5:]] + 1)


def test_gradients_pass_through_both_parts():
    split, features = make_split(some_order()), torch.randn(2, CHANNELS, 3, 4, requires_grad=True)
    semantic, structural = split.split(features)
    split.recompose(2 * semantic, 3 * structural).sum().backward()
    expected = torch.full((CHANNELS,), 3.0)
    expected[some_order()[:5]] = 2
    assert torch.equal(features.grad, expected.view(1, -1, 1, 1).expand_as(features))


def test_no_order_yet_is_refused_with_all_ways_out():
    with pytest.raises(RankingError, match=r"SPSD\.FILE is empty.*tools/rank_channels\.py.*SPSD\.ENABLED to False"):
        make_split(None).split(torch.randn(1, CHANNELS, 2, 2))


# ---------------------------------------------------------------------- checkpoints


def test_order_of_a_checkpoint_fills_a_model_without_one():
    source, target = make_split(some_order()), make_split(None)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.order, some_order())
    features = torch.randn(1, CHANNELS, 2, 2)
    assert torch.equal(target.split(features)[0], source.split(features)[0])


def test_order_of_a_checkpoint_fills_a_model_inside_others():
    source = torch.nn.ModuleDict({"channels": make_split(some_order()), "more": torch.nn.Linear(2, 2)})
    target = torch.nn.ModuleDict({"channels": make_split(None), "more": torch.nn.Linear(2, 2)})
    load_strictly(target, source.state_dict(), "model.pth")
    assert torch.equal(target["channels"].order, some_order())
    assert torch.equal(target["more"].weight, source["more"].weight)


def test_same_order_in_model_and_checkpoint_is_accepted():
    target = make_split(some_order())
    target.load_state_dict(make_split(some_order()).state_dict())
    assert torch.equal(target.order, some_order())


def test_other_order_in_the_checkpoint_is_refused_and_changes_nothing():
    target = make_split(some_order())
    with pytest.raises(RankingError, match=r"another channel ranking than ranking\.npz.*FILE empty .*or train anew"):
        target.load_state_dict(make_split(some_order(1)).state_dict())
    assert torch.equal(target.order, some_order())


@pytest.mark.parametrize("known", [True, False])
def test_checkpoint_without_an_order_keeps_the_models_and_stays_as_it_is(known: bool):
    target = make_split(some_order() if known else None)
    before, state = target.order.clone(), make_split(None).state_dict()
    kept = copy.deepcopy(state)
    target.load_state_dict(state)
    assert torch.equal(target.order, before)
    assert torch.equal(state["order"], kept["order"])


def test_checkpoint_of_another_head_leaves_the_order_unknown():
    target = make_split(None)
    target.load_state_dict({}, strict=False)
    with pytest.raises(RankingError):
        target.split(torch.randn(1, CHANNELS, 2, 2))
    target.load_state_dict(make_split(some_order()).state_dict())
    with pytest.raises(RankingError, match="another channel ranking"):
        target.load_state_dict(make_split(some_order(1)).state_dict())


def test_models_do_not_share_the_order_that_they_were_given():
    order = some_order()
    split = make_split(order)
    order.zero_()
    assert torch.equal(split.order, some_order())
