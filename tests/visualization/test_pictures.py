from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ovrs import visualization as vis

NAMES = ["building", "road", "water"]
COLOURS = vis.palette(3)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def labels():
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 2
    labels[:5] = 255
    return labels


@pytest.mark.parametrize("n", [0, 1, 8, 40, 254])
def test_palette_has_distinct_colours_none_of_them_the_ignored_one(n):
    colours = vis.palette(n)
    assert colours.shape == (n, 3)
    assert colours.dtype == np.uint8
    assert len({*map(tuple, colours.tolist()), vis.IGNORED_COLOUR}) == n + 1


def test_palette_of_few_classes_starts_the_palette_of_many():
    np.testing.assert_array_equal(vis.palette(5), vis.palette(50)[:5])


def test_palette_of_twenty_classes_keeps_its_colours_well_apart():
    colours = vis.palette(20).astype(float)
    gaps = np.linalg.norm(colours[:, None] - colours[None], axis=-1)[~np.eye(20, dtype=bool)]
    assert gaps.min() > 30


@pytest.mark.parametrize("n", [-1, 5000])
def test_palette_out_of_range_is_refused(n):
    with pytest.raises(ValueError, match=f"n is {n}"):
        vis.palette(n)


def test_colourise_gives_every_class_its_colour_and_black_to_ignored_pixels(labels):
    picture = vis.colourise(labels, COLOURS)
    assert (picture[:5] == 0).all()
    assert (picture[5:, :30] == COLOURS[0]).all()
    assert (picture[5:, 30:] == COLOURS[2]).all()


@pytest.mark.parametrize("wrong", [3, -1])
def test_label_without_a_colour_is_named(wrong):
    with pytest.raises(ValueError, match=f"label {wrong} is out of range: the palette has 3 colours"):
        vis.colourise(np.full((2, 2), wrong), COLOURS)


def test_ignored_value_may_lie_inside_the_palette():
    picture = vis.colourise(np.array([[0, 1]]), COLOURS, ignore=0)
    assert picture.tolist() == [[[0, 0, 0], COLOURS[1].tolist()]]


def test_overlay_mixes_by_alpha_and_leaves_ignored_pixels(image, labels):
    mixed = vis.overlay(image, labels, COLOURS, alpha=0.25)
    np.testing.assert_array_equal(mixed[:5], image[:5])
    expected = 0.75 * image[5:, :30] + 0.25 * COLOURS[0]
    assert np.abs(mixed[5:, :30] - expected).max() <= 0.5
    np.testing.assert_array_equal(vis.overlay(image, labels, COLOURS, alpha=0), image)
    np.testing.assert_array_equal(vis.overlay(image, labels, COLOURS, alpha=1)[5:], vis.colourise(labels, COLOURS)[5:])


def test_overlay_refuses_other_sizes_and_weights(image, labels):
    with pytest.raises(ValueError, match="labels is 39 x 60, the image 40 x 60"):
        vis.overlay(image, labels[1:], COLOURS)
    with pytest.raises(ValueError, match=r"alpha is 1\.5"):
        vis.overlay(image, labels, COLOURS, alpha=1.5)


def shows(picture, colour):
    return (picture == colour).all(axis=-1).any()


def test_legend_lists_all_classes_or_those_with_a_share():
    everything = vis.legend(NAMES, COLOURS, 300)
    assert everything.shape[1] == 300
    assert all(shows(everything, colour) for colour in COLOURS)
    some = vis.legend(NAMES, COLOURS, 300, {0: 0.5, 2: 0.5})
    assert shows(some, COLOURS[0])
    assert not shows(some, COLOURS[1])


def test_legend_shows_the_share():
    assert (vis.legend(NAMES, COLOURS, 300, {1: 0.25}) != vis.legend(NAMES, COLOURS, 300, {1: 0.75})).any()


def test_narrow_legend_becomes_taller_and_long_names_stay_inside():
    names = ["a very long class name that nobody would want to read in full", "road", "water"]
    narrow, wide = vis.legend(names, COLOURS, 120), vis.legend(names, COLOURS, 1200)
    assert len(narrow) > len(wide)
    assert (narrow[:, -4:] == 255).all()


def test_legend_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="4 names but 3 colours"):
        vis.legend([*NAMES, "car"], COLOURS, 300)
    with pytest.raises(ValueError, match="label 3 is out of range: there are 3 names"):
        vis.legend(NAMES, COLOURS, 300, {3: 0.1})
    with pytest.raises(ValueError, match="width is 20"):
        vis.legend(NAMES, COLOURS, 20)


def contains(sheet, panel):
    height, width = panel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (height, width, 3))
    return (windows[:, :, 0] == panel).all(axis=(2, 3, 4)).any()


def test_sheet_contains_image_truth_and_prediction(image, labels):
    prediction = np.ones_like(labels)
    sheet = vis.comparison_sheet(image, labels, prediction, NAMES, COLOURS, "a title")
    assert sheet.dtype == np.uint8
    maps = [vis.overlay(image, values, COLOURS, vis.SHEET_ALPHA) for values in (labels, prediction)]
    for panel in (image, *maps):
        assert contains(sheet, panel)


def test_sheet_without_truth_is_narrower_and_without_title_lower(image, labels):
    full = vis.comparison_sheet(image, labels, labels, NAMES, COLOURS, "a title")
    bare = vis.comparison_sheet(image, None, labels, NAMES, COLOURS)
    assert bare.shape[1] < full.shape[1]
    assert bare.shape[0] < full.shape[0]


def test_sheet_of_ignored_pixels_only_can_be_drawn(image, labels):
    nothing = np.full_like(labels, 255)
    assert contains(vis.comparison_sheet(image, nothing, nothing, NAMES, COLOURS), vis.overlay(image, nothing, COLOURS))


def test_sheet_names_the_map_whose_size_differs(image, labels):
    with pytest.raises(ValueError, match="truth is 39 x 60"):
        vis.comparison_sheet(image, labels[1:], labels, NAMES, COLOURS)
    with pytest.raises(ValueError, match="prediction is 39 x 60"):
        vis.comparison_sheet(image, labels, labels[1:], NAMES, COLOURS)


def test_saved_image_reads_back_and_leaves_no_other_file(tmp_path, image):
    path = vis.save_image(tmp_path / "new folder" / "a b.png", image)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    assert [file.name for file in path.parent.iterdir()] == ["a b.png"]


def test_failed_save_keeps_the_old_file(tmp_path, image, monkeypatch):
    path = vis.save_image(tmp_path / "a.png", image)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        vis.save_image(path, image[::2])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_unknown_image_format_is_named_before_anything_is_written(tmp_path, image):
    with pytest.raises(ValueError, match=r"no image format ends in '\.tree'"):
        vis.save_image(tmp_path / "folder" / "a.tree", image)
    assert not (tmp_path / "folder").exists()


def test_float_image_is_refused(image, labels):
    with pytest.raises(ValueError, match="image must be uint8 RGB"):
        vis.overlay(image / 255.0, labels, COLOURS)
    with pytest.raises(ValueError, match="labels must be integers"):
        vis.overlay(image, labels / 1.0, COLOURS)
