"""One image, many questions."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
import rasterio
from PIL import Image
from serve.colours import COLOURS, UTM, write_scene
from serve.conftest import WORDS, upload

from ovrs.errors import ConfigError, DataError, VocabularyError
from ovrs.serve.limits import Gone
from ovrs.serve.session import FILES, VIEW_SIDES


def labels_of(session) -> np.ndarray:
    with rasterio.open(session.file("labels.tif")) as dataset:
        return dataset.read(1)


def colours_of(session) -> list[str]:
    return [entry["colour"] for entry in session.summary()["classes"]]


def passes(predictor) -> tuple[int, int]:
    """Windows that the tower and the head have seen."""
    return predictor.model.vlm.passes, predictor.model.head.passes


# ---------------------------------------------------------------------- maps


def test_map_is_the_truth_on_the_images_own_pixels(session, truth):
    session.ask(WORDS)
    with rasterio.open(session.file("labels.tif")) as dataset:
        np.testing.assert_array_equal(dataset.read(1), truth)
        assert (dataset.crs, dataset.transform) == (rasterio.CRS.from_epsg(25832), UTM)


def test_map_is_what_the_raster_engine_makes_without_a_session(session, predictor, scene, tmp_path):
    words = ["lake", "forest", "sand|building", "road"]
    session.ask(words, threshold=0.7)
    predictor.predict_raster(str(scene), words, tmp_path / "maps", threshold=0.7, scores=True)
    for ending in ("labels.tif", "scores.tif"):
        with rasterio.open(tmp_path / "maps" / f"town_{ending}") as dataset, rasterio.open(session.file(ending)) as own:
            np.testing.assert_array_equal(own.read(), dataset.read())


def test_summary_says_shares_and_areas(session, truth):
    session.ask(WORDS)
    summary = session.summary()
    counts = np.bincount(truth.ravel())
    assert [entry["name"] for entry in summary["classes"]] == WORDS
    assert [entry["pixels"] for entry in summary["classes"]] == counts.tolist()
    assert [entry["share"] for entry in summary["classes"]] == pytest.approx((counts / counts.sum()).tolist())
    assert [entry["area"] for entry in summary["classes"]] == pytest.approx((counts / 4).tolist(), rel=2e-3)
    assert (summary["area_unit"], summary["crs"]) == ("m2", "EPSG:25832")
    assert (summary["file"], summary["width"], summary["height"]) == ("town.tif", 140, 100)


def test_picture_without_a_place_has_areas_in_pixels(service, tmp_path, truth):
    Image.fromarray(np.array([COLOURS[word] for word in WORDS], np.uint8)[truth]).save(tmp_path / "town.png")
    session = upload(service, tmp_path / "town.png")
    session.ask(WORDS)
    summary = session.summary()
    assert (summary["crs"], summary["area_unit"]) == (None, "px")
    assert [entry["area"] for entry in summary["classes"]] == np.bincount(truth.ravel()).tolist()


def test_pixels_without_data_belong_to_no_class(service, tmp_path, truth):
    picture = np.array([COLOURS[word] for word in WORDS], np.uint16)[truth].transpose(2, 0, 1) * 10
    picture[:, :, :30] = 0
    profile = {"driver": "GTiff", "height": 100, "width": 140, "count": 3, "dtype": "uint16", "nodata": 0}
    with rasterio.open(tmp_path / "deep.tif", "w", crs="EPSG:25832", transform=UTM, **profile) as dataset:
        dataset.write(picture)
    session = upload(service, tmp_path / "deep.tif")
    assert any("scaled to 0 to 255" in note for note in session.summary()["notes"])
    session.ask(WORDS)
    assert (labels_of(session)[:, :30] == 255).all()
    assert sum(entry["pixels"] for entry in session.summary()["classes"]) == 100 * 110
    assert session.pixel(3, 3) | {"position": None} == {"x": 3, "y": 3, "position": None, "class": None, "scores": {}}
    np.testing.assert_array_equal(session.view(1.0)[:, :20], session.picture[:, :20])


# ---------------------------------------------------------------------- what runs


def test_towers_see_an_image_once(session, predictor, truth):
    session.ask(WORDS)
    tower, head = passes(predictor)
    assert tower > 0
    assert head > 0
    session.ask(["lake", "forest", "building", "road", "sand"])
    assert passes(predictor)[0] == tower
    assert passes(predictor)[1] > head
    np.testing.assert_array_equal(labels_of(session), truth)


def test_same_question_and_other_colours_run_nothing(session, predictor):
    session.ask(WORDS)
    before = passes(predictor)
    session.ask(WORDS)
    session.recolour({"water": "#ff0000"})
    session.file("labels.tif")
    assert passes(predictor) == before


def test_features_beyond_the_memory_are_computed_again_with_the_same_result(make_service, predictor, scene, truth):
    session = upload(make_service(memory=0.1), scene)  # two windows of 64 x 64 x 3 floats fit
    session.ask(WORDS)
    first = passes(predictor)[0]
    session.ask([*WORDS, "sand"])
    again = passes(predictor)[0] - first
    assert 0 < again < first
    np.testing.assert_array_equal(labels_of(session), truth)


def test_classes_that_cannot_be_used_are_refused_before_anything_runs(session, predictor):
    session.ask(WORDS)
    before, labels = passes(predictor), labels_of(session)
    for classes in ([], ["road", "road"], ["road, water"], ["x" * 500, "road"], [f"class {i}" for i in range(101)]):
        with pytest.raises(VocabularyError):
            session.ask(classes)
    with pytest.raises(ConfigError, match="threshold must be from 0 to 1, got 2"):
        session.ask(WORDS, 2)
    assert passes(predictor) == before
    np.testing.assert_array_equal(labels_of(session), labels)  # the last answer stays


# ---------------------------------------------------------------------- colours


def test_chosen_colour_is_in_view_summary_and_files(session):
    session.ask(WORDS)
    expected = labels_of(session)
    session.recolour({"water": "#ff0010"})
    assert colours_of(session)[0] == "#ff0010"
    with rasterio.open(session.file("labels.tif")) as dataset:
        assert dataset.colormap(1)[0] == (255, 0, 16, 255)
        assert dataset.crs == rasterio.CRS.from_epsg(25832)
        assert dataset.nodata == 255
        np.testing.assert_array_equal(dataset.read(1), expected)
    assert 'color="#ff0010" label="water"' in session.file("labels.qml").read_text(encoding="utf-8")
    assert (session.view(1.0) == (255, 0, 16)).all(axis=-1).any()
    session.recolour({"water": ""})
    assert colours_of(session)[0] == "#0072b2"


def test_renamed_class_keeps_its_chosen_colour(session):
    session.ask(WORDS)
    session.recolour({"water": "#ff0010"})
    session.ask(["lake", "tree", "building", "road"])
    assert session.summary()["classes"][0] | {"name": "lake", "colour": "#ff0010"} == session.summary()["classes"][0]
    session.ask(["sand", "lake", "tree", "building", "road"])
    assert colours_of(session)[1] == "#ff0010"
    session.ask(["sand", "tree"])  # gone
    session.ask(["water", "tree"])
    assert colours_of(session)[0] == "#0072b2"


@pytest.mark.parametrize("colours", [{"water": "blue"}, {"wtaer": "#ff0000"}])
def test_colour_that_cannot_be_used_changes_nothing(session, colours):
    session.ask(WORDS)
    before = session.summary()
    with pytest.raises(ConfigError):
        session.recolour(colours)
    assert session.summary() == before


# ---------------------------------------------------------------------- pictures, pixels, files


def test_view_without_opacity_is_the_image(session, truth):
    colours = np.array([COLOURS[word] for word in WORDS], np.uint8)
    factor = VIEW_SIDES[0] // 140
    expected = colours[truth].repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(session.view(), expected)  # before any answer
    session.ask(WORDS)
    np.testing.assert_array_equal(session.view(0.0), expected)
    assert len(np.unique(session.view(1.0).reshape(-1, 3), axis=0)) == len(WORDS)
    with pytest.raises(ConfigError, match="opacity must be from 0 to 1"):
        session.view(1.5)


def test_large_image_is_reduced_to_be_shown(service, tmp_path):
    write_scene(tmp_path / "wide.tif", np.zeros((20, 3000), np.uint8), WORDS)
    session = upload(service, tmp_path / "wide.tif")
    assert session.view().shape == (9, 1280, 3)
    session.ask(WORDS)
    assert session.view().shape == (9, 1280, 3)
    assert session.pixel_of_view(1279, 8)["x"] == 2998
    assert session.pixel_of_view(0, 0)["y"] == 1


def test_pixel_has_its_class_and_all_scores(session, truth):
    session.ask(WORDS)
    pixel = session.pixel(75, 20)
    assert pixel["class"] == WORDS[truth[20, 75]] == "road"
    assert next(iter(pixel["scores"])) == "road"
    assert set(pixel["scores"]) == set(WORDS)
    assert sum(pixel["scores"].values()) == pytest.approx(1, abs=0.01)
    assert pixel["position"] == [346000 + 75.5 / 2, 5648000 - 20.5 / 2]
    factor = VIEW_SIDES[0] // 140
    assert session.pixel_of_view(75 * factor + 1, 20 * factor + 2) == pixel


def test_single_class_stands_against_everything_else(session, truth):
    session.ask(["water"], threshold=0.9)
    assert [entry["name"] for entry in session.summary()["classes"]] == ["water", "other"]
    assert (labels_of(session)[truth == 0] == 0).all()


@pytest.mark.parametrize(("x", "y"), [(140, 0), (0, 100), (-1, 0)])
def test_pixel_outside_is_refused(session, x, y):
    session.ask(WORDS)
    with pytest.raises(DataError, match="lies outside of the image, which has 140 x 100"):
        session.pixel(x, y)


def test_nothing_can_be_had_before_the_first_question(session):
    for ask in (lambda: session.pixel(0, 0), lambda: session.file("labels.tif"), lambda: session.recolour({})):
        with pytest.raises(ConfigError, match="nothing was asked yet"):
            ask()


def test_every_file_is_there_under_the_images_name(session):
    pytest.importorskip("pyogrio", reason="pip install 'ovrs[serve]'")
    session.ask(WORDS)
    assert [session.file(ending).name for ending in FILES] == [f"town_{ending}" for ending in FILES]
    assert all(session.file(ending).stat().st_size for ending in FILES)
    with pytest.raises(Gone, match="there is no file"):
        session.file("../town.tif")


def test_polygons_have_the_areas_of_the_classes(session):
    pytest.importorskip("pyogrio", reason="pip install 'ovrs[serve]'")
    session.ask(WORDS)
    with sqlite3.connect(session.file("polygons.gpkg")) as database:
        rows = database.execute("SELECT class, SUM(area_m2) FROM town_polygons GROUP BY class").fetchall()
    assert dict(rows) == pytest.approx(
        {entry["name"]: entry["area"] for entry in session.summary()["classes"]}, rel=1e-6
    )


def test_end_of_a_session_removes_its_files(session):
    session.ask(WORDS)
    folder = session.path.parent
    assert folder.exists()
    session.close()
    assert not folder.exists()
    for ask in (lambda: session.ask(WORDS), session.summary, session.view, lambda: session.file("labels.tif")):
        with pytest.raises(Gone, match="upload the image again"):
            ask()
