"""Fusions of two cost volumes and the uncertainty gate against their formulas."""

from __future__ import annotations

import pytest
import torch
from cost_fusion_reference import naive_cost_fusion, naive_gate
from head_checks import assert_close
from head_inputs import filled

from ovrs.heads.blocks.cost_volume import rotation_cost
from ovrs.heads.blocks.fusion import COST_FUSIONS, CostFusion
from ovrs.heads.dr_seg.fusion import MultiScaleFusion, UncertaintyGate

HIDDEN = 16
UGAF = {
    "sigmoid": {"activation": "sigmoid"},
    "one-scale": {"kernels": (5,)},
    "wide-head": {"head_kernel": 5},
    "pointwise": {"kernels": (1,), "head_kernel": 1},
}
KINDS = {**COST_FUSIONS, "ugaf": MultiScaleFusion}
CASES = [(kind, {}) for kind in KINDS] + [("ugaf", options) for options in UGAF.values()]
IDS = [*KINDS, *(f"ugaf-{name}" for name in UGAF)]


def build_fusion(kind: str, channels: int, second_channels: int, hidden: int, **options: object) -> CostFusion:
    return KINDS[kind](channels, second_channels, hidden, **options)


def make_costs(
    classes: int = 3, rotations: int = 4, second: int = 1, grid: tuple[int, int] = (5, 6)
) -> tuple[torch.Tensor, torch.Tensor]:
    cost = torch.rand(2, classes, rotations, *grid) * 2 - 1
    return cost, torch.rand(2, classes, second, *grid) * 2 - 1


# ---------------------------------------------------------------------- fusions


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
@pytest.mark.parametrize(("rotations", "second"), [(4, 1), (1, 1), (1, 3)])
def test_fusion_and_its_gradients_equal_the_formula(kind: str, options: dict, rotations: int, second: int):
    fusion = filled(build_fusion(kind, rotations, second, HIDDEN, **options))
    costs = [part.requires_grad_() for part in make_costs(3, rotations, second)]
    if kind == "ori_only":
        costs[1] = None
    ours, expected = fusion(*costs), naive_cost_fusion(kind, fusion, *costs)
    assert ours.shape == (2, 3, HIDDEN, 5, 6)
    assert_close(ours, expected)

    target = torch.randn_like(ours)
    read = {"ori_only": costs[:1], "ref_only": costs[1:]}.get(kind, costs)
    leaves = [*fusion.parameters(), *read]
    fast, naive = (torch.autograd.grad((out * target).sum(), leaves) for out in (ours, expected))
    names = [*(name for name, _ in fusion.named_parameters()), *("cost", "second")[: len(read)]]
    for name, one, other in zip(names, fast, naive, strict=True):
        assert other.norm() > 0, name
        assert (one - other).norm() <= 1e-4 * other.norm(), name


@torch.no_grad()
def test_first_volume_alone_ignores_the_second():
    fusion = filled(build_fusion("ori_only", 4, 1, HIDDEN))
    cost, second = make_costs()
    assert torch.equal(fusion(cost), fusion(cost, second))


@torch.no_grad()
def test_means_weigh_maps_or_branches_alike():
    cost, second = make_costs(1, 4, 1)
    weights = {"mean": (4 / 5, 1 / 5), "branch_mean": (1 / 2, 1 / 2)}
    for kind, (first, other) in weights.items():
        fusion = filled(build_fusion(kind, 4, 1, HIDDEN))
        expected = fusion.embed(first * cost[:, 0].mean(dim=1, keepdim=True) + other * second[:, 0])
        assert_close(fusion(cost, second)[:, 0], expected)


@torch.no_grad()
def test_separate_fusion_lies_between_zero_and_two():
    fusion = filled(build_fusion("separate", 4, 1, HIDDEN))
    fused = fusion(*make_costs())
    assert 0 < fused.min() < fused.max() < 2


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_class_sees_another(kind: str):
    fusion = filled(build_fusion(kind, 4, 1, HIDDEN))
    cost, second = make_costs(classes=5)
    some = fusion(cost[:, [4, 1]], second[:, [4, 1]])
    torch.testing.assert_close(some, fusion(cost, second)[:, [4, 1]], rtol=1e-5, atol=1e-5)


def test_fusions_of_the_published_width_have_the_published_sizes():
    def count(*modules: torch.nn.Module) -> int:
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    kernel = 49 * 128
    assert count(build_fusion("ugaf", 4, 1, 128), UncertaintyGate()) == 387_074
    assert count(build_fusion("ori_only", 4, 1, 128)) == 4 * kernel + 128
    assert count(build_fusion("ref_only", 4, 1, 128)) == kernel + 128
    assert count(build_fusion("mean", 4, 1, 128)) == kernel + 128
    assert count(build_fusion("branch_mean", 4, 1, 128)) == kernel + 128
    assert count(build_fusion("concat", 4, 1, 128)) == 5 * kernel + 128
    assert count(build_fusion("add", 4, 1, 128)) == 5 * kernel + 2 * 128
    assert count(build_fusion("separate", 4, 1, 128)) == (5 + 256) * kernel + 3 * 128


@torch.no_grad()
def test_multi_scale_fusion_only_adds_to_the_embedding_of_the_first_volume():
    fusion = filled(MultiScaleFusion(4, 1, HIDDEN))
    cost, second = make_costs()
    correction = fusion(cost, second) - fusion.embed(cost.flatten(0, 1)).unflatten(0, (2, 3))
    assert correction.min() > -1e-5
    assert correction.max() > 0.1


# ---------------------------------------------------------------------- the gate


@pytest.mark.parametrize("tau", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("classes", [1, 2, 17])
@torch.no_grad()
def test_gate_and_uncertainty_equal_equations_twelve_and_thirteen(classes: int, tau: float):
    gate = filled(UncertaintyGate(tau))
    cost = 0.3 * make_costs(classes)[0]
    ours, expected = gate(cost), naive_gate(gate, cost)
    for value, formula in zip(ours, expected, strict=True):
        assert value.shape == (2, 1, 5, 6)
        torch.testing.assert_close(value.double(), formula, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.1, 1.0, 100.0])
@torch.no_grad()
def test_uncertainty_lies_in_zero_to_one(scale: float):
    uncertainty = UncertaintyGate().uncertainty(scale * make_costs(classes=9)[0])
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1


@torch.no_grad()
def test_uncertainty_grows_with_entropy():
    gate, cost = UncertaintyGate(), make_costs(classes=6)[0]
    levels = torch.stack([gate.uncertainty(scale * cost) for scale in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)])
    assert (levels.diff(dim=0) > 0).all()
    assert levels[0].mean() < 0.5 < levels[-1].mean()


@pytest.mark.parametrize("classes", [2, 7, 300])
@torch.no_grad()
def test_equal_costs_are_wholly_uncertain_and_a_sure_class_is_not(classes: int):
    gate = UncertaintyGate()
    equal = torch.full((1, classes, 4, 2, 2), 0.2)
    assert gate.uncertainty(equal).numpy() == pytest.approx(1, abs=1e-4)
    equal[:, 0] = 1
    assert gate.uncertainty(equal).numpy() == pytest.approx(0, abs=1e-6)


@torch.no_grad()
def test_single_class_is_never_uncertain():
    gate = UncertaintyGate()
    opened, uncertainty = gate(make_costs(classes=1)[0])
    assert not uncertainty.any()
    assert (opened == 0.5).all()


@torch.no_grad()
def test_plain_cosines_need_a_small_temperature():
    # Cosines like CLIP's leave M constant at tau = 1.
    cost = 0.15 + 0.17 * torch.rand(4, 17, 1, 24, 24)
    literal, ours = UncertaintyGate(1.0).uncertainty(cost), UncertaintyGate(0.01).uncertainty(cost)
    assert 0.998 < literal.min() < literal.max() < 1
    assert 0.1 < ours.mean() < 0.3
    assert ours.max() - ours.min() > 0.3


@torch.no_grad()
def test_temperature_divides_the_costs():
    cost = 0.2 * make_costs()[0]
    torch.testing.assert_close(UncertaintyGate(0.05).uncertainty(cost), UncertaintyGate(1.0).uncertainty(20 * cost))


@torch.no_grad()
def test_gate_opens_with_uncertainty_before_training():
    gate, cost = UncertaintyGate(), make_costs(classes=6)[0]
    opened, uncertainty = (torch.cat(parts) for parts in zip(gate(0.02 * cost), gate(0.2 * cost), strict=True))
    order = uncertainty.flatten().argsort()
    assert (opened.flatten()[order].diff() >= 0).all()
    assert opened.max() - opened.min() > 0.1
    torch.testing.assert_close(opened, uncertainty.sigmoid())


@pytest.mark.parametrize("detach", [True, False])
def test_gradient_passes_through_the_uncertainty_only_where_wanted(detach: bool):
    gate, cost = UncertaintyGate(tau=0.5, detach=detach), make_costs()[0].requires_grad_()
    gate(cost)[0].sum().backward()
    assert (cost.grad is None) == detach
    assert gate.psi.weight.grad.abs() > 0
    assert gate.psi.bias.grad.abs() > 0


@torch.no_grad()
def test_order_of_classes_leaves_the_gate():
    gate, cost = UncertaintyGate(), 0.1 * make_costs(classes=5)[0]
    torch.testing.assert_close(gate(cost[:, [4, 2, 0, 1, 3]]), gate(cost))


@torch.no_grad()
def test_rotations_are_averaged_before_the_softmax():
    gate, cost = UncertaintyGate(), 0.1 * make_costs(classes=5)[0]
    torch.testing.assert_close(gate.uncertainty(cost.mean(dim=2, keepdim=True)), gate.uncertainty(cost))
    torch.testing.assert_close(gate.uncertainty(cost[:, :, [2, 0, 3, 1]]), gate.uncertainty(cost))


@torch.no_grad()
def test_uncertainty_is_computed_in_fp32_under_autocast():
    gate, cost = UncertaintyGate(), make_costs()[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gate.uncertainty(cost), UncertaintyGate().uncertainty(cost))
    assert gate.uncertainty(cost.double()).dtype == torch.float64


# ---------------------------------------------------------------------- the rotations' cost


def test_rotation_cost_is_the_cosine_of_every_view_in_its_own_channel():
    rotated, text = torch.randn(2, 4, 12, 5, 6), torch.nn.functional.normalize(torch.randn(3, 12), dim=1)
    cost = rotation_cost(rotated, text)
    assert cost.shape == (2, 3, 4, 5, 6)
    for view in range(4):
        unit = rotated[:, view] / rotated[:, view].norm(dim=1, keepdim=True)
        for index, words in enumerate(text):
            expected = (unit * words[None, :, None, None]).sum(dim=1)
            torch.testing.assert_close(cost[:, index, view], expected, rtol=1e-5, atol=1e-6)
