"""Graph rectification against the equations of DR-Seg, written down edge by edge."""

from __future__ import annotations

import pytest
import torch
from graph_reference import naive_graph, naive_rectification
from head_checks import assert_close
from head_inputs import filled

from ovrs.config.options import options_node, read_options
from ovrs.errors import ConfigError
from ovrs.heads.dr_seg.graph import GraphOptions, GraphRectification, affinity, neighbours

CHANNELS, DIM, GRID = 6, 5, (4, 5)
SPARSE = {"topk": 4, "edge_hidden": 7}
# Every reading of the equations, and strong values of the constants that are nearly inert.
READINGS = {
    "default": {},
    "plain-distance": {"dist_mode": "l2"},
    "strong-distance": {"sigma_s": 3.0},
    "strong-plain-distance": {"sigma_s": 9.0, "dist_mode": "l2"},
    "raw-input": {"edge_input": "raw"},
    "affinity": {"edge_weight": "affinity"},
    "affinity-scaled": {"edge_weight": "affinity", "sigma_f": 7.0},
    "product": {"edge_weight": "mlp_x_affinity"},
    "columns": {"degree": "col"},
    "symmetrised": {"degree": "symmetrised"},
    "symmetrised-product": {"degree": "symmetrised", "edge_weight": "mlp_x_affinity"},
    "self-counts": {"topk_includes_self": True},
    "only-self": {"topk": 1, "topk_includes_self": True},
    "one-neighbour": {"topk": 1},
    "all-nodes": {"topk": 19},
    "more-than-all-nodes": {"topk": 75},
    "more-than-all-columns": {"topk": 75, "degree": "col"},
    "residual": {"residual": True},
    "one-layer": {"n_layers": 1},
    "three-layers": {"n_layers": 3},
}


def make_module(gamma: float = 1.0, **options: object) -> GraphRectification:
    return GraphRectification(CHANNELS, DIM, GraphOptions(**{**SPARSE, **options}), gamma).double()


def make_maps(images: int = 2, grid: tuple[int, int] = GRID) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and a prior that is alike in parts of the image, as real ones are."""
    shared = torch.randn(images, DIM, *grid, dtype=torch.float64)
    return torch.randn(images, CHANNELS, *grid, dtype=torch.float64), 2 * shared + shared.roll(1, dims=3)


# ---------------------------------------------------------------------- against the equations


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_and_its_gradients_equal_the_equations(reading: str):
    module = filled(make_module(**READINGS[reading])).double()
    features, prior = make_maps()
    features.requires_grad_()
    ours, expected = module(features, prior), naive_rectification(module, features, prior)
    assert_close(ours, expected)

    target = torch.randn_like(ours)
    leaves = [*module.parameters(), features]
    gradients = [torch.autograd.grad((out * target).sum(), leaves, allow_unused=True) for out in (ours, expected)]
    names = [*(name for name, _ in module.named_parameters()), "features"]
    of_mlp = ("receiver", "sender", "edge")
    for name, fast, naive in zip(names, *gradients, strict=True):
        if module.options.edge_weight == "affinity" and name.startswith(of_mlp):
            assert (fast, naive) == (None, None), name
            continue
        # A node that hears only itself hears itself with weight 1, whatever the edge's.
        assert naive.abs().max() > 1e-6 or reading == "only-self", name
        assert (fast - naive).abs().max() <= 1e-9 * naive.abs().max() + 1e-12, name


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 1), (3, 3)])
@torch.no_grad()
def test_any_grid_equals_the_equations(grid: tuple[int, int]):
    module = filled(make_module()).double()
    features, prior = make_maps(grid=grid)
    assert_close(module(features, prior), naive_rectification(module, features, prior))


def test_readings_differ_from_the_default():
    features, prior = make_maps()
    default = filled(make_module()).double()(features, prior)
    same = {"default", "plain-distance", "affinity-scaled"}  # at these sizes distance is nearly inert
    for name in READINGS.keys() - same - {"one-layer", "three-layers"}:
        other = filled(make_module(**READINGS[name])).double()(features, prior)
        assert (other - default).abs().max() > 1e-4, name


@pytest.mark.parametrize("mode", ["l2", "l2_sq"])
def test_affinity_is_equation_seven(mode: str):
    _, prior = make_maps(images=1)
    nodes = prior[0].flatten(1).T
    options = GraphOptions(dist_mode=mode, sigma_s=0.7)
    ours = affinity(nodes[None], GRID, options)[0]
    torch.testing.assert_close(ours, torch.tensor(naive_graph(nodes, GRID, options)[1], dtype=torch.float64))
    assert ours.diagonal().allclose(torch.full((20,), 2.0, dtype=torch.float64))


def test_squared_distance_decays_to_a_fifth_and_plain_distance_hardly():
    prior = torch.ones(1, 576, 3, dtype=torch.float64)
    for mode, lowest in (("l2", 0.951), ("l2_sq", 0.197)):
        decay = affinity(prior, (24, 24), GraphOptions(dist_mode=mode, sigma_f=1.0))
        assert decay.min() == pytest.approx(lowest, abs=5e-4)
        assert decay.max() == pytest.approx(1.0)


# ---------------------------------------------------------------------- who is a neighbour


def test_of_equal_affinities_the_lower_index_wins():
    equal = torch.ones(1, 6, 6)
    listed = neighbours(equal, 3, includes_self=False)[0].tolist()
    assert listed == [[1, 2, 3, 0], [0, 2, 3, 1], [0, 1, 3, 2], [0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 5]]
    equal[0, 5, 4] = 2
    assert neighbours(equal, 3, includes_self=False)[0, 5].tolist() == [4, 0, 1, 5]


def test_ties_are_broken_by_index_in_rows_as_long_as_the_real_ones():
    affine = torch.randint(0, 3, (2, 576, 576)).float()
    listed = neighbours(affine, 75, includes_self=False)
    for row, chosen in ((0, listed[0, 0]), (333, listed[1, 333])):
        values = affine[0 if row == 0 else 1, row].tolist()
        expected = sorted((j for j in range(576) if j != row), key=lambda j: (-values[j], j))[:75]
        assert chosen.tolist() == [*expected, row]


@pytest.mark.parametrize(
    ("count", "includes_self", "others"), [(1, True, 0), (3, True, 2), (3, False, 3), (9, False, 5)]
)
def test_the_node_itself_is_always_its_own_last_neighbour(count: int, includes_self: bool, others: int):
    listed = neighbours(torch.rand(2, 6, 6), count, includes_self)
    assert listed.shape == (2, 6, others + 1)
    assert (listed[..., -1] == torch.arange(6)).all()
    assert all(len(set(row)) == others + 1 for image in listed.tolist() for row in image)


def test_opposite_features_are_as_alike_as_equal_ones():
    options = GraphOptions(topk=1, sigma_s=0.0)
    prior = torch.eye(6, dtype=torch.float64)[None]
    prior[0, 5] = -prior[0, 0]
    affine = affinity(prior, (1, 6), options)
    assert affine[0, 0, 5] == affine[0, 0, 0] == 2.0
    assert neighbours(affine, 1, includes_self=False)[0, 0].tolist() == [5, 0]


# ---------------------------------------------------------------------- propagation


@pytest.mark.parametrize("degree", ["row", "col", "symmetrised"])
def test_degrees_are_what_makes_the_weights_sum_up(degree: str):
    # With d the sums of rows, P sqrt(d) = sqrt(d): the largest eigenvalue is 1; with columns the same of the transpose.
    module = filled(make_module(degree=degree)).double()
    _, prior = make_maps()
    weights = module.propagation(prior.flatten(2).transpose(1, 2), GRID)
    assert (weights >= 0).all()
    assert (weights.diagonal(dim1=1, dim2=2) > 0).all()
    assert torch.linalg.eigvals(weights).abs().amax(dim=1).allclose(torch.ones(2, dtype=torch.float64), atol=1e-4)
    mutual = (weights > 0) == (weights > 0).transpose(1, 2)
    assert bool(mutual.all()) == (degree == "symmetrised")
    if degree != "symmetrised":
        assert ((weights > 0).sum(dim=2) == 5).all()


@torch.no_grad()
def test_constant_prior_averages_over_all_where_all_are_neighbours():
    module = filled(make_module(topk=75, n_layers=1)).double()
    features, _ = make_maps()
    prior = torch.full((2, DIM, *GRID), 0.3, dtype=torch.float64)
    rectified = module(features, prior)
    mean = module.norm(module.layers[0](features.flatten(2).mean(dim=2)))
    assert_close(rectified, mean[:, :, None, None].expand_as(rectified))


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_constant_prior_has_finite_gradients(value: float):
    module = make_module()
    features, prior = make_maps()
    module(features.requires_grad_(), torch.full_like(prior, value)).square().sum().backward()
    assert features.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@torch.no_grad()
def test_batch_equals_single_images():
    for degree in ("row", "symmetrised"):  # symmetrised lists are filled up to the longest of the batch
        module = filled(make_module(degree=degree)).double()
        features, prior = make_maps(images=3)
        singles = [module(features[i : i + 1], prior[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(module(features, prior), torch.cat(singles))


@torch.no_grad()
def test_scale_of_the_prior_matters_only_raw():
    features, prior = make_maps()
    for edge_input, same in (("unit_rms", True), ("raw", False)):
        module = filled(make_module(edge_input=edge_input)).double()
        change = (module(features, 5 * prior) - module(features, prior)).abs().max()
        assert (change < 1e-9) == same


def test_affinity_and_choice_of_neighbours_give_the_prior_no_gradient():
    module = make_module(edge_weight="affinity")
    features, prior = make_maps()
    module(features.requires_grad_(), prior.requires_grad_()).square().sum().backward()
    assert prior.grad is None
    assert features.grad.abs().max() > 0


@torch.no_grad()
def test_output_is_fp32_and_the_same_under_autocast():
    module = make_module().float()
    features, prior = (part.float() for part in make_maps())
    with torch.autocast("cpu", torch.bfloat16):
        rectified = module(features, prior)
    assert rectified.dtype == torch.float32
    assert torch.equal(rectified, module(features, prior))


# ---------------------------------------------------------------------- sizes and starting values


@pytest.mark.parametrize(
    ("channels", "prior_dim", "expected"),
    [
        pytest.param(256, 1024, 393_985, id="B-DINOv3"),
        pytest.param(384, 1024, 558_081, id="L-DINOv3"),
        pytest.param(256, 768, 328_449, id="B-DINOv1"),
        pytest.param(384, 768, 492_545, id="L-DINOv1"),
    ],
)
def test_module_has_the_published_number_of_parameters(channels: int, prior_dim: int, expected: int):
    module = GraphRectification(channels, prior_dim, GraphOptions(), 1.0)
    assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_weights_start_as_configured():
    module = GraphRectification(64, 32, GraphOptions(init="eye"), 0.25)
    assert all(torch.equal(layer.weight, torch.eye(64)) for layer in module.layers)
    assert (module.norm.weight == 0.25).all()
    module = GraphRectification(64, 32, GraphOptions(), 1.0)
    bound = (6 / 128) ** 0.5  # Xavier
    for layer in module.layers:
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is None
    bound = 64**-0.5  # PyTorch's for a layer of 64 inputs, as [g_i ; g_j] has
    for weight in (module.receiver.weight, module.sender.weight):
        assert 0.95 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dist_mode": "l1"}, r"KEY\.DIST_MODE must be one of l2_sq, l2, got 'l1'"),
        ({"edge_input": "unit"}, r"KEY\.EDGE_INPUT must be one of unit_rms, raw, got 'unit'"),
        ({"edge_weight": "ones"}, r"KEY\.EDGE_WEIGHT must be one of mlp, affinity, .*'ones'"),
        ({"degree": "rows"}, r"KEY\.DEGREE must be one of row, col, symmetrised, got 'rows'"),
        ({"init": "zeros"}, r"KEY\.INIT must be one of xavier, eye, got 'zeros'"),
        ({"topk": 0}, r"KEY\.TOPK must be at least 1, got 0"),
        ({"edge_hidden": 0}, r"KEY\.EDGE_HIDDEN must be at least 1, got 0"),
        ({"n_layers": 0}, r"KEY\.N_LAYERS must be at least 1, got 0"),
    ],
)
def test_impossible_option_is_refused_with_its_key(options: dict, message: str):
    node = options_node(GraphOptions)
    node.update({name.upper(): value for name, value in options.items()})
    with pytest.raises(ConfigError, match=message):
        read_options(GraphOptions, node, "KEY")
