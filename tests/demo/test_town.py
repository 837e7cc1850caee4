"""The scene at the end of the demonstration: a raster with a place on the earth, and its truth."""

import numpy as np
import pytest
import rasterio

from ovrs.demo import CLASS_COLOURS, CLASSES, write_town
from ovrs.demo.dataset import GSD_M

SIZE = 96


@pytest.fixture
def town(tmp_path):
    return write_town(tmp_path / "town", SIZE)


def test_scene_and_truth_lie_on_one_grid_in_metres(town):
    with rasterio.open(town[0]) as image, rasterio.open(town[1]) as truth:
        assert (image.count, truth.count) == (3, 1)
        assert image.shape == truth.shape == (SIZE, SIZE)
        assert image.crs == truth.crs
        assert image.crs.linear_units == "metre"
        assert image.transform == truth.transform
        assert image.res == (GSD_M, GSD_M)


def test_truth_has_the_classes_colours(town):
    with rasterio.open(town[1]) as truth:
        labels, colours = truth.read(1), truth.colormap(1)
    assert len(np.unique(labels)) > 1
    assert labels.max() < len(CLASSES)
    assert [colours[index][:3] for index in range(len(CLASSES))] == [tuple(colour) for colour in CLASS_COLOURS.tolist()]


def test_written_town_is_left_alone_and_another_size_replaces_it(town):
    before = [file.stat().st_mtime_ns for file in town]
    assert write_town(town[0].parent, SIZE) == town
    assert [file.stat().st_mtime_ns for file in town] == before
    write_town(town[0].parent, SIZE + 32)
    with rasterio.open(town[0]) as image:
        assert image.width == SIZE + 32


def test_missing_truth_is_written_again(town):
    town[1].unlink()
    write_town(town[0].parent, SIZE)
    assert town[1].is_file()
