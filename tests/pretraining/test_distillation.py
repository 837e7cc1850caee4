"""Networks, loss, centre and teacher, against the paper's equations written out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from ovrs.pretraining.dino import DistillationLoss, Network, clip_gradients, follow, parameter_groups
from ovrs.pretraining.trainer import _build_tower


@pytest.fixture
def network(tiny_recipe):
    recipe = tiny_recipe()
    return Network(_build_tower(recipe), recipe)


def test_loss_is_the_mean_cross_entropy_over_pairs_of_different_crops(tiny_recipe):
    loss = DistillationLoss(tiny_recipe())
    loss.centre.normal_(std=0.1)
    student, teacher = torch.randn(4 * 3, 32), torch.randn(2 * 3, 32) / 10
    total, entropies, pairs = 0.0, [], 0
    for large in range(2):
        for view in range(4):
            if view == large:
                continue
            for image in range(3):
                target = torch.softmax((teacher[large * 3 + image] - loss.centre[0]) / 0.05, 0)
                answer = torch.softmax(student[view * 3 + image] / 0.1, 0)
                total -= float((target * answer.log()).sum()) / 3
            pairs += 1
        for image in range(3):
            target = torch.softmax((teacher[large * 3 + image] - loss.centre[0]) / 0.05, 0)
            entropies.append(float(-(target * target.log()).sum()))
    found, entropy = loss(student, teacher, 2, 0.05)
    assert found.item() == pytest.approx(total / pairs, rel=1e-5)
    assert entropy.item() == pytest.approx(sum(entropies) / 6, rel=1e-5)


def test_equal_scores_have_the_greatest_entropy(tiny_recipe):
    loss = DistillationLoss(tiny_recipe())
    found, entropy = loss(torch.ones(8, 32), torch.ones(4, 32), 2, 0.07)
    assert entropy.item() == pytest.approx(math.log(32))
    assert found.item() == pytest.approx(math.log(32))


def test_centre_is_a_running_mean(tiny_recipe):
    loss = DistillationLoss(tiny_recipe(CENTRE_MOMENTUM=0.75))
    first, second = torch.randn(6, 32), torch.randn(6, 32)
    loss.update_centre(first)
    loss.update_centre(second)
    expected = 0.75 * 0.25 * first.mean(0) + 0.25 * second.mean(0)
    torch.testing.assert_close(loss.centre[0], expected)


def test_head_gives_cosines(network):
    token = torch.randn(5, 24)
    hidden = network.head.mlp(token)
    rows = network.head.last_layer.weight
    expected = torch.cosine_similarity(hidden[:, None], rows[None], dim=-1)
    torch.testing.assert_close(network.head(token), expected, rtol=1e-4, atol=1e-6)


def test_crops_of_two_sizes_are_the_vits_class_tokens_in_order(network):
    network.eval()
    large, small = torch.randn(3, 3, 32, 32), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        both = network(large, small)
        torch.testing.assert_close(both[:3], network.head(network.backbone(large)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(both[3:], network(small))


def test_teacher_follows_by_exactly_the_formula(network):
    teacher, student = copy.deepcopy(network), network
    for parameter in student.parameters():
        nn.init.normal_(parameter)
    before = [parameter.clone() for parameter in teacher.parameters()]
    follow(teacher, student, 0.9)
    for old, new, found in zip(before, student.parameters(), teacher.parameters(), strict=True):
        assert torch.equal(found, (old * 0.9).add(new, alpha=1 - 0.9))


def test_positions_of_small_crops_follow_the_teacher(network):
    """What is remembered of resized positions must not outlive a step."""
    teacher = copy.deepcopy(network).requires_grad_(False).eval()
    teacher._run_blocks.__self__.vit = teacher.backbone
    small = torch.randn(1, 3, 16, 16)
    first = teacher(small)
    with torch.no_grad():
        network.backbone.pos_embed.normal_()
    follow(teacher, network, 0.5)
    fresh = copy.deepcopy(teacher)
    assert not torch.equal(teacher(small), first)
    torch.testing.assert_close(teacher(small), fresh(small))


def test_biases_and_norms_do_not_decay(network):
    decaying, others = parameter_groups(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    kept = {names[id(parameter)] for parameter in others["params"]}
    assert all(name.endswith(".bias") or ".norm" in name for name in kept)
    assert {"backbone.blocks.0.norm1.weight", "backbone.norm.bias", "head.mlp.0.bias"} <= kept
    assert len(kept) + len(decaying["params"]) == len(names)
    assert "head.last_layer.weight" not in kept


def test_every_tensors_gradient_is_shortened_by_itself():
    network = nn.Linear(2, 1)
    network.weight.grad, network.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([0.5])
    assert clip_gradients(network, 1.0).item() == pytest.approx(math.hypot(5, 0.5))
    torch.testing.assert_close(network.weight.grad, torch.tensor([[0.6, 0.8]]), rtol=1e-5, atol=0)
    assert network.bias.grad.item() == 0.5
    clip_gradients(network, 0)
    assert network.bias.grad.item() == 0.5
