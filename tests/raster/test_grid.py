from __future__ import annotations

import itertools

import numpy as np
import pytest
from affine import Affine

from ovrs.raster.grid import Axis, blend_weights, origin_pixels


@pytest.mark.parametrize("pixels", [1, 5, 31, 32, 33, 100, 1001])
@pytest.mark.parametrize("origin", [0, 7, -3.5, 1e7 + 0.25])
@pytest.mark.parametrize("scale", [1.0, 0.4, 2.5])
@pytest.mark.parametrize(("kernel", "stride", "cell"), [(32, 20, 4), (32, 32, 1), (42, 14, 14), (9, 6, 3)])
def test_windows_cover_the_side_and_blocks_share_no_pixel(pixels, origin, scale, kernel, stride, cell):
    axis = Axis.anchored(pixels, origin, kernel, stride, cell, scale)
    assert axis.start(0) <= 0
    assert axis.start(axis.count - 1) + kernel >= axis.size
    assert axis.count == 1 or axis.start(axis.count - 2) + kernel < axis.size, "no more windows than needed"
    owned = [axis.own(block) for block in range(axis.count)]
    assert owned[0][0] == 0
    assert owned[-1][1] == pixels
    assert all(before[1] == after[0] for before, after in itertools.pairwise(owned))
    for block, (first, last) in enumerate(owned):
        low, high = axis.span(block)
        inside = axis.canvas_of(first, last)
        assert ((inside >= low) & (inside < high)).all()
        needed = axis.start(block) - cell  # the scores before the block's window, which are interpolated
        for window in range(block + 1):
            assert window in axis.windows_of(block) or axis.start(window) + kernel <= needed
        if block + 1 < axis.count and high > 0:
            assert axis.start(block + 1) >= high + cell // 2, "a later window adds to a finished block"


@pytest.mark.parametrize("cut", [1, 13, 20, 57])
@pytest.mark.parametrize("left", [0.0, 123456.5, -17.25])
@pytest.mark.parametrize("scale", [1.0, 0.4, 2.5])
def test_cut_has_its_windows_where_the_whole_has_them(cut, left, scale):
    whole = Axis.anchored(200, left / 0.3, 32, 20, 4, scale)
    part = Axis.anchored(120, (left + 0.3 * cut) / 0.3, 32, 20, 4, scale)

    every = 20 * scale
    one = whole.start(0) * whole.scale - whole.shift
    other = cut + part.start(0) * part.scale - part.shift
    assert abs((one - other + every / 2) % every - every / 2) < 1e-5


def test_origin_is_counted_in_pixels_of_rotated_and_mirrored_rasters():
    assert origin_pixels(Affine.identity()) == (0, 0)
    assert origin_pixels(Affine(0.5, 0, 100, 0, -0.5, 200)) == (-400, 200)
    assert origin_pixels(Affine(0.5, 0, 100, 0, 0.5, 200)) == (400, 200)
    turned = Affine.rotation(30) * Affine.scale(2, -2)
    row, column = origin_pixels(turned * Affine.translation(12, 34))
    np.testing.assert_allclose((row, column), (34, 12))


def test_weights_are_positive_even_and_largest_in_the_middle():
    weights = blend_weights(32, 2)
    assert weights.shape == (16,)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-6)
    assert (np.diff(weights[:8]) > 0).all()
