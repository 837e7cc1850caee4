from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from ovrs import visualization as vis
from ovrs.ranking.study import new_figure, write_study

# Letters of one script and width: where a font has none of them, all show the same box.
SCRIPTS = {"umlauts": "äöü", "Cyrillic": "Жшф", "Chinese": "水建筑", "Japanese": "ビル木", "Korean": "건물길"}
COLOURS = vis.palette(1)


@pytest.mark.parametrize("letters", SCRIPTS.values(), ids=SCRIPTS)
def test_letters_are_drawn_and_no_boxes(letters, caplog):
    pictures = [vis.legend([2 * letter], COLOURS, 300) for letter in (*letters, "\uffff")]
    for place, one in enumerate(pictures):
        assert all((one != other).any() for other in pictures[:place])
    assert [record for record in caplog.records if any(letter in record.getMessage() for letter in letters)] == []


def test_letters_that_no_font_has_are_told_once(caplog):
    with caplog.at_level(logging.WARNING):
        vis.legend(["น้ำ", "water"], COLOURS.repeat(2, axis=0), 300)
        vis.legend(["น้ำ", "water"], COLOURS.repeat(2, axis=0), 300)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "น (U+0E19)" in message
    assert "'น้ำ'" in message


@pytest.mark.parametrize("letters", SCRIPTS.values(), ids=SCRIPTS)
def test_plots_show_the_letters_too(letters, tmp_path, recwarn):
    pictures = []
    for letter in letters:
        figure = new_figure()
        figure.subplots().set(title=4 * letter)
        *_, path = write_study(tmp_path / "plot", {}, "", figure)
        pictures.append(np.asarray(Image.open(path)))
    assert all((one != other).any() for one, other in pairwise(pictures))
    assert not [warning for warning in recwarn if "missing from font" in str(warning.message)]


def swatch_rows(picture, colour):
    return int((picture == colour).all(axis=-1).any(axis=1).sum())


def ink_rows(picture):
    return int((picture < 100).all(axis=-1).any(axis=1).sum())


def test_text_and_swatches_grow_with_wide_pictures():
    small, large = (vis.legend(["water"], COLOURS, width) for width in (900, 3600))
    assert swatch_rows(large, COLOURS[0]) == pytest.approx(3 * swatch_rows(small, COLOURS[0]), rel=0.1)
    assert ink_rows(large) == pytest.approx(3 * ink_rows(small), rel=0.2)


def test_title_of_a_wide_sheet_grows_with_it():
    def title(width):
        image = np.full((20, width, 3), 255, np.uint8)
        labels = np.zeros((20, width), np.uint8)
        with_title = vis.comparison_sheet(image, None, labels, ["water"], COLOURS, "title")
        return len(with_title) - len(vis.comparison_sheet(image, None, labels, ["water"], COLOURS))

    assert title(1800) > 2 * title(500)
