from __future__ import annotations

import numpy as np
import pytest

from ovrs import visualization as vis


def test_colours_go_from_dark_to_bright_and_stop_at_the_ends_of_the_scale():
    colours = vis.heat(np.array([[-9.0, 0.0, 0.5, 1.0, 9.0, np.nan]]), vis.Scale(0.0, 1.0))[0].astype(int)
    brightness = colours.sum(axis=1)
    assert (colours[0] == colours[1]).all()
    assert (colours[3] == colours[4]).all()
    assert brightness[1] < brightness[2] < brightness[3]
    assert colours[5].tolist() == [255, 255, 255]


def test_scale_covers_all_maps_and_leaves_out_what_is_not_finite():
    assert vis.Scale.of([1.0, np.nan], [[-2.0, np.inf]]) == vis.Scale(-2.0, 1.0)
    assert vis.Scale.of([3.0, 3.0]) == vis.Scale(2.5, 3.5)


@pytest.mark.parametrize(
    ("low", "high", "text"), [(0, 1, "0.12"), (0, 0.1, "0.123"), (0, 500, "0"), (0.1664, 0.167, "0.1235")]
)
def test_numbers_have_as_many_decimals_as_the_range_needs(low, high, text):
    assert vis.Scale(low, high).text(0.12345) == text


def test_overlay_dims_the_image_where_there_is_nothing():
    image = np.full((2, 2, 3), 200, np.uint8)
    drawn = vis.heat_overlay(image, np.array([[0.0, 1.0], [0.0, 0.5]]), vis.Scale(0.0, 1.0))
    assert (drawn[:, 0] == 90).all()
    assert (drawn[0, 1] != drawn[1, 1]).any()


def test_cells_of_like_features_have_like_colours():
    generator = np.random.default_rng(0)
    kinds = generator.normal(size=(3, 20))
    which = generator.integers(0, 3, (8, 9))
    features = kinds[which].transpose(2, 0, 1) + 0.01 * generator.normal(size=(20, 8, 9))
    colours = vis.principal_colours(features).astype(int)
    assert colours.shape == (8, 9, 3)
    means = np.array([colours[which == kind].mean(axis=0) for kind in range(3)])
    spread = max(np.abs(colours[which == kind] - means[kind]).mean() for kind in range(3))
    gaps = np.linalg.norm(means[:, None] - means[None], axis=-1)[~np.eye(3, dtype=bool)]
    assert gaps.min() > 5 * spread


def test_colours_of_features_do_not_depend_on_rotations_of_their_space():
    generator = np.random.default_rng(1)
    features = generator.gamma(1.0, size=(5, 6, 7)) * np.array([9.0, 5.0, 3.0, 1.0, 0.5])[:, None, None]
    rotation, _ = np.linalg.qr(generator.normal(size=(5, 5)))
    turned = np.einsum("dc,chw->dhw", rotation, features)
    assert np.abs(vis.principal_colours(features).astype(int) - vis.principal_colours(turned)).max() <= 1


def test_two_channels_and_constant_features_can_be_coloured():
    assert vis.principal_colours(np.random.default_rng(0).normal(size=(2, 3, 3)))[..., 2].max() == 0
    assert (vis.principal_colours(np.ones((4, 3, 3))) == 0).all()


def test_matrix_has_a_cell_of_its_colour_for_every_number():
    scale = vis.Scale(0.0, 1.0)
    values = np.array([[0.0, 0.3], [0.6, 1.0]])
    picture = vis.matrix(values, ["1 water", "2 a long name"], ["1", "2"], scale)
    for colour in vis.heat(values, scale).reshape(-1, 3):
        assert (picture == colour).all(axis=-1).sum() > 500
    wider = vis.matrix(np.full((2, 20), 0.3), ["1 water", "2"], [str(i) for i in range(20)], scale)
    assert wider.shape[1] < 20 * 40  # without numbers
