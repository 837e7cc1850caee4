"""Segments of label maps: numbers, sizes and places."""

from __future__ import annotations

import numpy as np
import pytest

from ovrs.data.segments import class_segments


def test_segments_are_counted_measured_and_placed():
    labels = np.full((8, 16), 255, np.uint8)
    labels[0:2, 0:4] = 0
    labels[6:8, 14:16] = 0
    labels[2, 4] = 0  # touches the first by a corner
    labels[4:6, 8:10] = 1
    road, tree, nothing = class_segments([labels, np.full((8, 16), 1, np.uint8)], 3)
    assert sorted(road.sizes.tolist()) == [4, 9]
    assert (road.pixels, road.images) == (13, 1)
    assert tree.sizes.tolist() == [4, 128]
    assert tree.centres.tolist() == [[9 / 16, 5 / 8], [0.5, 0.5]]
    assert tree.images == 2
    assert (nothing.pixels, nothing.images) == (0, 0)
    assert all(np.isnan(value) for value in (*nothing.centre, *nothing.spread, *nothing.size_quantiles))


def test_centre_of_a_class_weighs_pixels():
    labels = np.zeros((4, 8), np.uint8)
    labels[:, 6:] = 1
    left, right = class_segments([labels], 2)
    assert left.centre == pytest.approx((3 / 8, 0.5))
    assert right.centre == pytest.approx((7 / 8, 0.5))
    assert right.size_quantiles == (8, 8, 8)


def test_pixels_add_up_over_noise():
    random = np.random.default_rng(0)
    maps = [random.integers(0, 5, (20, 30)).astype(np.uint8) for _ in range(3)]
    found = class_segments(maps, 5)
    expected = np.bincount(np.concatenate([each.ravel() for each in maps]), minlength=5)
    assert [each.pixels for each in found] == expected.tolist()
