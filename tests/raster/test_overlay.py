"""A map drawn in the colours of its style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from models import NAMES, ColourModel, draw_truth, read, write_scene

from ovrs.errors import DataError
from ovrs.raster import LocalExecutor, RasterOptions, map_rasters
from ovrs.raster.overlay import draw_styled
from ovrs.visualization import class_colours, read_qml

KOELN = Path(__file__).parents[3] / "shared/data/raster/oem_koeln_50.tif"


def make_map(path, out):
    executor = LocalExecutor(ColourModel(kernel=128))
    (outcome,) = map_rasters([path], out, executor, RasterOptions(colours={"tree": "#123456"}))
    executor.close()
    assert outcome["status"] == "done", outcome
    return out / f"{path.stem}_labels.tif", outcome


@pytest.fixture
def made(tmp_path):
    """A map with pixels without data, and its truth."""
    truth = draw_truth(300, 280, patch=20)
    path = write_scene(tmp_path / "scene.tif", truth, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.write(np.zeros((3, 20, 20), np.uint8), window=((0, 20), (0, 20)))
    return make_map(path, tmp_path / "maps")[0]


def test_style_and_map_have_the_same_names_and_colours(made):
    names, colours = read_qml(made.with_suffix(".qml"))
    assert names == NAMES
    np.testing.assert_array_equal(colours, class_colours(NAMES, {"tree": "#123456"}))
    with rasterio.open(made) as file:
        assert [file.colormap(1)[value][:3] for value in range(5)] == [tuple(colour) for colour in colours.tolist()]


def test_picture_has_the_colours_of_the_style_and_a_legend(made):
    picture, colours = draw_styled(made), read_qml(made.with_suffix(".qml"))[1]
    labels = read(made)
    expected = np.vstack([colours, [[255] * 3] * 251])[labels]
    np.testing.assert_array_equal(picture[:300, :280], expected)
    assert all((picture[300:] == colour).all(axis=-1).any() for colour in colours)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("#123456", "#123457", "colours of .* differ from its style"),
        ('label="tree"', 'label="wood"', "names the classes building, tree.*its style building, wood"),
        ('value="1"', 'value="7"', "does not give a colour to each"),
        ("</qgis>", "", "cannot be read"),
    ],
)
def test_style_that_does_not_fit_the_map_is_told(made, old, new, message):
    style = made.with_suffix(".qml")
    style.write_text(style.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        draw_styled(made)


@pytest.mark.skipif(not KOELN.is_file(), reason="the raster lies outside of the repository")
def test_map_of_a_photograph_from_the_air_is_drawn(tmp_path):
    labels, outcome = make_map(KOELN, tmp_path)
    with rasterio.open(labels) as ours, rasterio.open(KOELN) as source:
        assert (ours.crs, ours.transform, ours.shape) == (source.crs, source.transform, source.shape)
        values = ours.read(1)
    assert sum(area["pixels"] for area in outcome["classes"]) == (values != 255).sum()
    picture = draw_styled(labels)
    colours = read_qml(labels.with_suffix(".qml"))[1]
    assert all((picture == colour).all(axis=-1).any() for colour in colours[np.unique(values[values != 255])])
