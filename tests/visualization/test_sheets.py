from __future__ import annotations

import numpy as np
import pytest
from test_pictures import COLOURS, NAMES, contains

from ovrs import visualization as vis


def panel(seed: int, height: int = 40, width: int = 60):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_sheet_holds_every_panel_and_what_is_below():
    panels = [panel(seed) for seed in range(3)]
    below = panel(9, 20, 50)
    sheet = vis.sheet([vis.Row([("a", panels[0]), ("b", panels[1])], "first"), vis.Row([("c", panels[2])])], "t", below)
    for picture in (*panels, below):
        assert contains(sheet, picture)


def test_row_with_a_scale_has_its_colours_beside_it():
    white = np.full((60, 60, 3), 255, np.uint8)
    scale = vis.Scale(0.0, 1.0)
    with_bar, without = (vis.sheet([vis.Row([("map", white)], scale=each)]) for each in (scale, None))
    assert with_bar.shape[1] > without.shape[1]
    ends = vis.heat(np.array([[0.0, 1.0]]), scale)[0]
    assert all((with_bar == colour).all(axis=-1).any() for colour in ends)


def test_fitted_keeps_proportions():
    assert vis.fitted(panel(0, 40, 60), 30).shape == (20, 30, 3)
    assert vis.fitted(panel(0, 60, 40), 120).shape == (120, 80, 3)


def compared(seed: int, truth: bool = True, **labels: int) -> vis.Compared:
    size = (40, 60)
    maps = {name: np.full(size, label, np.uint8) for name, label in labels.items()}
    return vis.Compared(f"image {seed}", panel(seed), np.full(size, 255, np.uint8) if truth else None, maps)


def test_models_stand_side_by_side_under_one_legend():
    rows = [compared(0, one=0, two=2), compared(1, truth=False, one=2, two=0)]
    sheet = vis.models_sheet(rows, NAMES, COLOURS, width=60)
    for row in rows:
        assert contains(sheet, row.image)
        for labels in row.predictions.values():
            assert contains(sheet, vis.overlay(row.image, labels, COLOURS, vis.SHEET_ALPHA))
    colours = [bool((sheet == colour).all(axis=-1).sum() > 200) for colour in COLOURS]
    assert colours == [True, False, True]  # the legend lists what occurs


def test_map_of_another_size_is_named():
    row = compared(0, one=0)
    with pytest.raises(ValueError, match="two is 39 x 60, the image 40 x 60"):
        vis.models_sheet(
            [vis.Compared("", row.image, None, {**row.predictions, "two": np.zeros((39, 60), np.uint8)})],
            NAMES,
            COLOURS,
        )


def test_columns_are_straight_whatever_the_form_of_the_images():
    labels = {name: np.zeros((80, 40), np.uint8) for name in ("one", "two")}
    tall = vis.Compared("tall", panel(5, 80, 40), None, labels)
    wide = compared(0, truth=False, one=0, two=2)
    assert vis.models_sheet([wide, tall], NAMES, COLOURS, width=60).shape[1] == 3 * 68 + 8
