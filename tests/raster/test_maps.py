from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from models import COLOURS, NAMES, UTM, ColourModel, RampModel, draw_truth, read, write_raster, write_scene
from PIL import Image
from rasterio.enums import ColorInterp

from ovrs.data.rasters import turned
from ovrs.raster import LocalExecutor, RasterOptions, map_rasters
from ovrs.scores import ScoreRule


@pytest.fixture
def make_map(tmp_path):
    """Map one raster; return its labels and what the report says."""

    def make(path, model=None, out="maps", **options):
        executor = LocalExecutor(model or ColourModel(), readers=2)
        (outcome,) = map_rasters([path], tmp_path / out, executor, RasterOptions(**options))
        executor.close()
        assert outcome["status"] == "done", outcome
        return read(tmp_path / out / f"{path.stem}_labels.tif"), outcome

    return make


TRANSFORMS = {
    "north_up": ("EPSG:25832", UTM),
    "south_up": ("EPSG:25832", Affine(0.5, 0, 346000, 0, 0.5, 5648000)),
    "rotated": ("EPSG:25832", UTM * Affine.rotation(17)),
    "broken_origin": ("EPSG:25832", Affine(0.3, 0, 346000.17, 0, -0.3, 5648000.05)),
    "degrees": ("EPSG:4326", Affine(1e-5, 0, 6.9, 0, -1e-5, 50.9)),
    "no_crs": (None, UTM),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_map_agrees_with_truth_to_the_pixel_and_lies_where_the_raster_lies(tmp_path, make_map, name):
    crs, transform = TRANSFORMS[name]
    truth = draw_truth(101, 90)
    path = write_scene(tmp_path / "scene.tif", truth, crs=crs, transform=transform)
    labels, outcome = make_map(path)
    np.testing.assert_array_equal(labels, truth)
    with rasterio.open(tmp_path / "maps/scene_labels.tif") as found, rasterio.open(path) as source:
        assert (found.crs, found.transform, found.bounds) == (source.crs, source.transform, source.bounds)
    assert [area["pixels"] for area in outcome["classes"]] == np.bincount(truth.ravel()).tolist()


def test_picture_without_place_is_mapped(tmp_path, make_map):
    truth = draw_truth(50, 60)
    path = write_scene(tmp_path / "picture.png", truth, driver="PNG", crs=None, transform=None)
    labels, outcome = make_map(path)
    np.testing.assert_array_equal(labels, truth)
    assert "not georeferenced" in outcome["notes"][0]
    assert outcome["area_kind"] == "pixels"


class WatchingModel(ColourModel):
    """Keeps what it is shown."""

    def score(self, windows):
        self.seen = [*getattr(self, "seen", []), *windows.numpy()]
        return super().score(windows)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photograph_is_shown_upright_and_mapped_as_it_is_stored(tmp_path, make_map, orientation):
    truth = draw_truth(50, 60)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS[truth]).save(tmp_path / "photo.png", exif=exif)
    Image.fromarray(COLOURS[truth]).save(tmp_path / "plain.png")
    turned_model, plain_model = WatchingModel(), WatchingModel()
    labels, outcome = make_map(tmp_path / "photo.png", turned_model)
    make_map(tmp_path / "plain.png", plain_model, out="plain")
    np.testing.assert_array_equal(labels, truth)
    assert any("turned" in note for note in outcome["notes"]) == (orientation > 1)
    for turned_window, plain_window in zip(turned_model.seen, plain_model.seen, strict=True):
        expected = turned(plain_window.transpose(1, 2, 0), orientation).transpose(2, 0, 1)
        np.testing.assert_array_equal(turned_window, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (5, 9), (32, 32), (33, 31)])
def test_small_rasters_are_mapped(tmp_path, make_map, shape):
    truth = draw_truth(*shape)
    labels, _ = make_map(write_scene(tmp_path / "small.tif", truth))
    np.testing.assert_array_equal(labels, truth)


def test_nodata_alpha_and_nan_stay_without_a_label(tmp_path, make_map):
    truth = draw_truth(90, 80)
    expected = truth.copy()
    expected[:40] = 255
    expected[60:, 50:] = 255
    gone = expected == 255
    picture = COLOURS[truth].transpose(2, 0, 1).copy()
    picture[:, gone] = 7

    labels, _ = make_map(write_raster(tmp_path / "nodata.tif", picture, nodata=7))
    np.testing.assert_array_equal(labels, expected)

    layered = np.concatenate([picture, np.where(gone, 0, 255)[None].astype(np.uint8)])
    labels, _ = make_map(write_raster(tmp_path / "alpha.tif", layered, photometric="rgb", alpha="yes"))
    np.testing.assert_array_equal(labels, expected)

    floating = np.where(gone, np.nan, picture).astype(np.float32)
    path = write_raster(tmp_path / "nan.tif", floating)
    labels, _ = make_map(path, value_range=(0, 255))
    np.testing.assert_array_equal(labels, expected)


def test_windows_without_data_are_not_scored(tmp_path, make_map):
    picture = np.zeros((3, 200, 200), np.uint8)
    picture[:, 150:, 150:] = 200
    path = write_raster(tmp_path / "corner.tif", picture, nodata=0)
    model = ColourModel(batch_size=1)
    labels, _ = make_map(path, model)
    assert (labels[:150] == 255).all()
    assert (labels[150:, 150:] != 255).all()
    assert model.passes <= 16  # of 100 windows


def test_raster_without_any_data_gives_an_empty_map(tmp_path, make_map):
    model = ColourModel()
    labels, _ = make_map(write_raster(tmp_path / "empty.tif", np.zeros((3, 50, 50), np.uint8), nodata=0), model)
    assert (labels == 255).all()
    assert model.passes == 0


def test_sixteen_bits_are_scaled_once_for_the_whole_raster(tmp_path, make_map):
    truth = draw_truth(120, 130)
    deep = (COLOURS[truth].transpose(2, 0, 1).astype(np.uint16) * 40) + 1000
    path = write_raster(tmp_path / "deep.tif", deep)
    labels, outcome = make_map(path, value_range=(1000, 1000 + 255 * 40))
    np.testing.assert_array_equal(labels, truth)
    _, outcome = make_map(path)
    assert "2600 to 9000, 2600 to 9000, 2600 to 9000 scaled" in outcome["notes"][0]
    with rasterio.open(tmp_path / "maps/deep_labels.tif") as found:
        assert "2600 to 9000" in found.tags()["OVRS_READING"]


def test_bands_go_by_the_option_then_by_the_file(tmp_path, make_map):
    truth = draw_truth(60, 60)
    red, green, blue = COLOURS[truth].transpose(2, 0, 1)
    mixed = np.stack([blue, green, red, green])
    path = write_raster(tmp_path / "bgr.tif", mixed, photometric="minisblack")
    labels, _ = make_map(path, bands=(3, 2, 1))
    np.testing.assert_array_equal(labels, truth)
    _, outcome = make_map(path)
    assert "bands 1, 2, 3 of 4 taken" in outcome["notes"][0]
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
    labels, outcome = make_map(path)
    np.testing.assert_array_equal(labels, truth)
    assert "bands 3, 2, 1 by the file's colour interpretation" in outcome["notes"][0]


def test_palette_and_grey_rasters_are_read_as_colours(tmp_path, make_map):
    truth = draw_truth(60, 60)
    path = write_raster(tmp_path / "palette.tif", truth[None], photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {value: (*colour, 255) for value, colour in enumerate(COLOURS.tolist())})
    labels, _ = make_map(path)
    np.testing.assert_array_equal(labels, truth)
    labels, _ = make_map(write_raster(tmp_path / "grey.tif", np.full((1, 40, 40), 90, np.uint8)))
    assert (labels == NAMES.index("road")).all()


@pytest.mark.parametrize(("cell", "kernel"), [(1, 32), (4, 32), (14, 42)])
def test_seams_are_invisible_on_a_ramp(tmp_path, make_map, cell, kernel):
    ramp = np.broadcast_to(np.linspace(0, 254, 128).round()[None, :], (140, 128))
    path = write_raster(tmp_path / "ramp.tif", np.repeat(ramp[None], 3, axis=0).astype(np.uint8))
    make_map(path, RampModel(kernel=kernel, cell=cell, names=("bright",)), confidence=True)
    found = read(tmp_path / "maps/ramp_confidence.tif").astype(int)
    # Away from the border: there, windows are mirrored, and a mean over cells is no ramp any more.
    inner = found[kernel:-kernel, kernel:-kernel]
    assert np.abs(inner - ramp[kernel:-kernel, kernel:-kernel] * 254 / 255).max() <= 1
    assert (np.diff(inner, axis=1) >= 1).all()
    assert (np.diff(inner, axis=1) <= 3).all()


@pytest.mark.parametrize(("cell", "kernel"), [(1, 32), (4, 32), (14, 42)])
def test_cut_agrees_with_the_whole_away_from_its_border(tmp_path, make_map, cell, kernel):
    picture = np.random.default_rng(3).integers(0, 256, (3, 230, 210), dtype=np.uint8)
    whole = write_raster(tmp_path / "whole.tif", picture)
    top, left = 37, 51
    cut = write_raster(
        tmp_path / "cut.tif",
        picture[:, top : top + 150, left : left + 140],
        transform=UTM * Affine.translation(left, top),
    )
    for path in (whole, cut):
        make_map(path, ColourModel(kernel=kernel, cell=cell), confidence=True, scores=True)
    inside = slice(kernel, -kernel)
    for name, count in (("labels", 1), ("confidence", 1), ("scores", len(NAMES))):
        for band in range(1, count + 1):
            one = read(tmp_path / f"maps/whole_{name}.tif", band)[top : top + 150, left : left + 140]
            other = read(tmp_path / f"maps/cut_{name}.tif", band)
            np.testing.assert_array_equal(one[inside, inside], other[inside, inside])


@pytest.mark.parametrize("cell", [1, 4])
def test_area_of_interest_agrees_with_the_whole_everywhere(tmp_path, make_map, cell):
    picture = np.random.default_rng(3).integers(0, 256, (3, 150, 160), dtype=np.uint8)
    path = write_raster(tmp_path / "scene.tif", picture)
    whole, _ = make_map(path, ColourModel(cell=cell))
    left, top = UTM * (41, 33)
    right, bottom = UTM * (120, 97)
    part, _ = make_map(path, ColourModel(cell=cell), out="part", aoi=(left, bottom, right, top))
    np.testing.assert_array_equal(part, whole[33:97, 41:120])


def test_area_of_interest_from_a_file_in_another_crs(tmp_path, make_map):
    pytest.importorskip("pyogrio")
    from rasterio.features import geometry_mask
    from rasterio.warp import transform_geom

    truth = draw_truth(150, 160)
    path = write_scene(tmp_path / "scene.tif", truth)
    ring = [UTM * corner for corner in ((40.2, 30.1), (129.7, 60.7), (70.4, 119.6), (40.2, 30.1))]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {}, "geometry": transform_geom("EPSG:25832", "EPSG:4326", polygon)}
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    labels, _ = make_map(path, aoi=tmp_path / "area.geojson")
    inside = geometry_mask([polygon], truth.shape, UTM, invert=True)
    expected = np.where(inside, truth, 255)[30:120, 40:130]
    np.testing.assert_array_equal(labels, expected)
    with rasterio.open(tmp_path / "maps/scene_labels.tif") as found:
        np.testing.assert_allclose(found.transform * (0, 0), UTM * (40, 30), atol=0.5)


@pytest.mark.parametrize("memory", [0, 1])
def test_swaths_change_no_pixel(tmp_path, make_map, memory):
    path = write_raster(tmp_path / "wide.tif", np.random.default_rng(0).integers(0, 256, (3, 70, 300), dtype=np.uint8))
    one, _ = make_map(path, ColourModel(cell=4), confidence=True)
    sure = read(tmp_path / "maps/wide_confidence.tif")
    other, _ = make_map(path, ColourModel(cell=4), out="other", memory=memory, confidence=True)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(sure, read(tmp_path / "other/wide_confidence.tif"))


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_change_no_pixel(tmp_path, make_map, batch_size):
    path = write_raster(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 256, (3, 90, 80), dtype=np.uint8))
    one, _ = make_map(path, ColourModel(batch_size=3), scores=True)
    other, _ = make_map(path, ColourModel(batch_size=batch_size), out="other", scores=True)
    np.testing.assert_array_equal(one, other)
    assert (tmp_path / "maps/a_scores.tif").read_bytes() == (tmp_path / "other/a_scores.tif").read_bytes()


@pytest.mark.parametrize("gsd", [0.25, 1.0, 1.3])
def test_ground_size_changes_what_the_model_sees_not_the_map(tmp_path, make_map, gsd):
    truth = draw_truth(120, 120, patch=20)
    path = write_scene(tmp_path / "scene.tif", truth)
    labels, outcome = make_map(path, gsd=gsd)
    assert labels.shape == truth.shape
    assert "resampled" in outcome["notes"][0]
    # Pixels along the borders of patches are mixtures.
    assert np.mean(labels == truth) > 0.93
    middle = np.zeros_like(truth, bool)
    middle.reshape(6, 20, 6, 20)[:, 5:15, :, 5:15] = True
    np.testing.assert_array_equal(labels[middle], truth[middle])


def test_weak_pixels_become_other_and_many_classes_take_two_bytes(tmp_path, make_map):
    truth = draw_truth(40, 40)
    picture = COLOURS[truth].transpose(2, 0, 1).copy()
    picture[:, :20] = 255
    path = write_raster(tmp_path / "weak.tif", picture)
    labels, outcome = make_map(path, ColourModel(rule=ScoreRule(threshold=0.8), other="other"))
    assert (labels[:20] == len(NAMES)).all()
    np.testing.assert_array_equal(labels[20:], truth[20:])
    assert outcome["classes"][-1]["name"] == "other"

    class Many(ColourModel):
        def score(self, windows):
            scores = super().score(windows)
            return scores.new_zeros(len(scores), 300, *scores.shape[2:]).index_copy(1, SLOTS, scores)

    import torch

    SLOTS = torch.tensor([299, 256, 255, 0, 1])
    labels, _ = make_map(write_scene(tmp_path / "many.tif", truth), Many(names=tuple(f"c{i}" for i in range(300))))
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, SLOTS.numpy()[truth])


def test_words_of_a_class_compete_and_softmax_is_taken_last(tmp_path, make_map):
    truth = draw_truth(60, 60)
    rule = ScoreRule(activation="softmax", scale=1.0, synonyms="max")
    model = ColourModel(rule=rule)
    model.info = ColourModel(names=("made", "grown"), rule=rule, class_of=(0, 0, 0, 1, 1)).info
    inner = ColourModel()
    model.score = lambda windows: inner.score(windows) * 30
    labels, _ = make_map(write_scene(tmp_path / "words.tif", truth), model, scores=True)
    np.testing.assert_array_equal(labels, np.array([0, 0, 0, 1, 1])[truth])
    assert (read(tmp_path / "maps/words_scores.tif", 2)[truth >= 3] > 250).all()


def test_map_says_what_it_is(tmp_path, make_map):
    truth = draw_truth(600, 600, patch=50)
    path = write_scene(tmp_path / "Straße 1.tif", truth)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CAMERA="X100")
    make_map(path, ColourModel(kernel=128, batch_size=8), colours={"road": "#010203"})
    with rasterio.open(tmp_path / "maps/Straße 1_labels.tif") as found:
        assert found.overviews(1) == [2]
        assert found.profile["tiled"]
        assert found.nodata == 255
        tags = found.tags()
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert found.colormap(1)[NAMES.index("road")] == (1, 2, 3, 255)
    assert tags["CAMERA"] == "X100"
    assert json.loads(tags["OVRS_CLASSES"]) == list(NAMES)
    assert tags["OVRS_MODEL"] == "colour"
    assert "<Category>tree</Category>" in (tmp_path / "maps/Straße 1_labels.tif.aux.xml").read_text()
    assert 'color="#010203" label="road"' in (tmp_path / "maps/Straße 1_labels.qml").read_text()
    report = json.loads((tmp_path / "maps/report.json").read_text(encoding="utf-8"))
    assert [raster["status"] for raster in report["rasters"]] == ["done"]
    assert not list(tmp_path.glob("maps/*_parts"))


def test_ground_control_points_are_kept(tmp_path, make_map):
    from rasterio.control import GroundControlPoint

    truth = draw_truth(50, 60)
    points = [GroundControlPoint(row, col, 7 + col / 1e4, 50 - row / 1e4, 0) for row in (0, 50) for col in (0, 60)]
    path = write_scene(tmp_path / "points.tif", truth, crs=None, transform=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, rasterio.CRS.from_epsg(4326))
    labels, outcome = make_map(path)
    np.testing.assert_array_equal(labels, truth)
    assert "ground control points" in outcome["notes"][0]
    with rasterio.open(tmp_path / "maps/points_labels.tif") as found:
        assert [(p.row, p.col, p.x, p.y) for p in found.gcps[0]] == [(p.row, p.col, p.x, p.y) for p in points]
        assert found.gcps[1].to_epsg() == 4326
