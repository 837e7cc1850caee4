"""Windows over images, by the four rules for the border."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.preparation import Tiling, Window


@pytest.mark.parametrize(
    ("edge", "length", "starts"),
    [
        ("shift", 25, [0, 8, 15]),
        ("shift", 26, [0, 8, 16]),
        ("shift", 7, [0]),
        ("drop", 25, [0, 8]),
        ("drop", 26, [0, 8, 16]),
        ("drop", 7, []),
        ("exact", 26, [0, 8, 16]),
        ("pad", 25, [0, 8, 16]),
        ("pad", 27, [0, 8, 16, 24]),
        ("pad", 7, [0]),
    ],
)
def test_edge_rule_places_the_last_window(edge, length, starts):
    windows = Tiling(10, 8, edge).windows(length, 10)
    assert windows == [Window(start, start + 10, 0, 10) for start in starts]


@pytest.mark.parametrize("length", [25, 9])
def test_exact_refuses_what_the_windows_do_not_fill(length):
    with pytest.raises(ValueError, match=rf"windows of 10 pixels, 8 apart, do not fill {length} pixels"):
        Tiling(10, 8, "exact").windows(26, length)


@pytest.mark.parametrize("edge", ["shift", "pad"])
@pytest.mark.parametrize("shape", [(25, 31), (10, 10), (3, 40)])
def test_shift_and_pad_cover_every_pixel(edge, shape):
    covered = np.zeros(shape, bool)
    for top, bottom, left, right in Tiling(10, 7, edge).windows(*shape):
        covered[top:bottom, left:right] = True
    assert covered.all()


@pytest.mark.parametrize(
    ("name", "windows"), [("hg_potsdam_5", 256), ("gsnet_potsdam_5", 144), ("rskt_potsdam_6", 529)]
)
def test_cards_of_potsdam_cut_a_tile_into_the_published_number_of_windows(name, windows):
    assert len(Tiling.of_card(card_of(name)).windows(6000, 6000)) == windows


def test_windows_come_row_by_row():
    tops = [window.top for window in Tiling(10, 10, "drop").windows(30, 30)]
    assert tops == sorted(tops)
    assert len(set(tops)) == 3


@pytest.mark.parametrize(
    "tiling",
    [None, {"size": 512}, {"size": 8, "stride": 9, "edge": "drop"}, {"size": 8, "stride": 8, "edge": "crop"}],
)
def test_card_without_a_grid_is_refused(tiling):
    with pytest.raises(DataError, match=r"hg_potsdam_5\.yaml: source\.tiling"):
        Tiling.of_card(card_of("hg_potsdam_5", tiling=tiling))
