from __future__ import annotations

import numpy as np
import pytest

from ovrs.errors import ConfigError
from ovrs.visualization import class_colours


def test_water_is_blue_and_chosen_colours_win():
    red, green, blue = class_colours(["road", "open water"])[1].astype(int)
    assert blue > 2 * red
    assert blue > green
    assert class_colours(["water"], {"water": "#FF0102"}).tolist() == [[255, 1, 2]]


@pytest.mark.parametrize(("one", "other"), [("tree", "Trees"), ("bare soil", "bare-soil"), ("sea", "river")])
def test_colour_goes_by_the_noun(one, other):
    np.testing.assert_array_equal(class_colours([one]), class_colours([other]))


def test_no_two_classes_share_a_colour():
    names = ["river", "lake", "sea", "tree", "forest", "house", "building", *(f"thing {i}" for i in range(60))]
    colours = class_colours(names)
    assert len({*map(tuple, colours.tolist()), (0, 0, 0)}) == len(names) + 1


@pytest.mark.parametrize(
    ("chosen", "message"),
    [({"water": "blue"}, "must look like #1e90ff"), ({"watr": "#0000ff"}, "did you mean water")],
)
def test_wrong_colours_are_told(chosen, message):
    with pytest.raises(ConfigError, match=message):
        class_colours(["road", "water"], chosen)
