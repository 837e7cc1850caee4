from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from image_pairs import save_pair

from ovrs.data import contact_sheet as module
from ovrs.data.catalog import resolve_datasets
from ovrs.data.contact_sheet import contact_sheet
from ovrs.data.inspection import count_classes
from ovrs.visualization import colourise

COLOURS = [[255, 255, 255], [0, 0, 255], [0, 200, 0]]
LABELS = np.array([[1, 0, 255], [2, 2, 2]], np.uint8)


@pytest.fixture
def flags(write_card):
    """The registered name of five pairs of 3 x 2 squares, every square 40 pixels wide."""
    card = write_card(palette=COLOURS)
    for number in range(5):
        save_pair(card.parent, f"flag{number}", LABELS.repeat(40, 0).repeat(40, 1), number * 50)
    return resolve_datasets([str(card)])[0]


def places(sheet: np.ndarray, panel: np.ndarray) -> list[tuple[int, int]]:
    """Return (row, column) of every place where the sheet shows the panel."""
    height, width = panel.shape[:2]
    coloured = (sheet == panel[0, 0]).all(-1)
    corners = coloured[1:, 1:] & ~coloured[:-1, 1:] & ~coloured[1:, :-1]
    return [
        (y, x) for y, x in (np.argwhere(corners) + 1).tolist() if (sheet[y : y + height, x : x + width] == panel).all()
    ]


def test_every_image_stands_beside_its_labels_in_the_colours_of_the_card(flags):
    sheet = contact_sheet(flags, 5, None)
    assert sheet.dtype == np.uint8
    mask = colourise(LABELS.repeat(80, 0).repeat(80, 1), COLOURS)  # enlarged to a tile's width
    assert len(places(sheet, mask)) == 5
    left_top = [(y, x - 248) for y, x in places(sheet, mask)]
    assert sorted(sheet[y, x, 1].item() for y, x in left_top) == [0, 50, 100, 150, 200]  # green numbers the image


def test_fewer_images_make_a_smaller_sheet(flags):
    shapes = [contact_sheet(flags, count, None).shape[:2] for count in (1, 2, 3, 4, 6)]
    widths, heights = [shape[1] for shape in shapes], [shape[0] for shape in shapes]
    assert widths[0] < widths[1] < widths[2] == widths[3] == widths[4]
    assert heights[0] == heights[2] < heights[3] == heights[4]


def test_histogram_has_a_bar_per_class_as_long_as_its_share(flags):
    counts = count_classes(flags)
    sheet, without = contact_sheet(flags, 1, counts), contact_sheet(flags, 1, None)
    histogram = sheet[len(without) :]
    # Squares per image: one of each of the first two classes, three of the last, one ignored.
    lengths = {
        index: (histogram == colour).all(-1)[:, module._NAME_WIDTH :].sum(1).max()
        for index, colour in enumerate(COLOURS)
    }
    assert lengths[2] / lengths[1] == pytest.approx(3, rel=0.05)
    outlines = (histogram[:, module._NAME_WIDTH] == module._OUTLINE).all(-1)
    assert outlines.sum() >= 4 * 18  # the white class's bar and the black one of ignored pixels can be seen too


def test_histogram_says_how_many_files_it_counts(flags):
    all_files, two_files = (contact_sheet(flags, 1, count_classes(flags, sample)) for sample in (0, 2))
    assert all_files.shape == two_files.shape
    assert (all_files != two_files).any()


def test_images_without_labels_stand_alone(write_card, flags):
    card = write_card("bare.yaml", name="bare", splits={"t": {"images": "images", "labels": None}})
    bare = contact_sheet(resolve_datasets([str(card)])[0], 3, None)
    assert bare.shape[1] < contact_sheet(flags, 3, None).shape[1]
    assert (bare != 255).any()


def test_images_of_any_shape_fit_their_tiles(write_card):
    card = write_card()
    for stem, shape in (("long", (2, 400)), ("tall", (400, 3)), ("dot", (1, 1))):
        save_pair(card.parent, stem, np.zeros(shape, np.uint8))
    (name,) = resolve_datasets([str(card)])
    sheet = contact_sheet(name, 3, count_classes(name))
    colour = MetadataCatalog.get(name).stuff_colors[0]
    panels = (sheet[: len(contact_sheet(name, 3, None))] == colour).all(-1)
    assert panels.sum() == 240 * 1 + 240 * 2 + 240 * 240
