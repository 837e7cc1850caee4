"""ovrs predict: the files that it writes, and how it refuses."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image

from ovrs import Predictor
from ovrs.visualization import SHEET_ALPHA, class_colours, overlay

CLASSES = ("building|house", "road", "open water")
NAMES = ["building", "road", "open water"]


@pytest.fixture
def model(trained):
    return ("--model", trained)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "my images" / "town.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)).save(path)
    return path


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def refusal(ovrs, *words):
    with pytest.raises(SystemExit) as caught:
        ovrs("predict", *words)
    return caught.value.code


def test_map_holds_the_predictors_indices_under_colours_that_fit_the_words(ovrs, model, image, trained, tmp_path):
    ovrs("predict", image, *model, "--classes", *CLASSES, "--out", tmp_path / "new folder")
    Predictor.from_pretrained(trained).predict_raster(image, CLASSES, tmp_path / "api")
    labels = read(tmp_path / "new folder/town_labels.tif")
    np.testing.assert_array_equal(labels, read(tmp_path / "api/town_labels.tif"))
    assert labels.shape == (40, 56)
    assert labels.max() < 3
    with rasterio.open(tmp_path / "new folder/town_labels.tif") as dataset:
        colours = [dataset.colormap(1)[value][:3] for value in range(3)]
        assert json.loads(dataset.tags()["OVRS_CLASSES"]) == NAMES
    np.testing.assert_array_equal(colours, class_colours(NAMES))


def test_model_can_be_named_by_its_files(ovrs, model, image, trained, tmp_path):
    files = ("--config-file", trained / "config.yaml", "--weights", trained / "model_final.pth")
    ovrs("predict", image, *files, "--classes", *CLASSES, "--out", tmp_path / "a")
    ovrs("predict", image, *model, "--classes", *CLASSES, "--out", tmp_path / "b")
    assert (tmp_path / "a/town_labels.tif").read_bytes() == (tmp_path / "b/town_labels.tif").read_bytes()


def test_overlay_shows_the_image_beside_the_map(ovrs, model, image, tmp_path):
    ovrs("predict", *model, image, "--classes", *CLASSES, "--out", tmp_path)
    sheet = np.asarray(Image.open(tmp_path / "town_overlay.png"))
    labels = read(tmp_path / "town_labels.tif")
    pixels = np.asarray(Image.open(image))
    (top,) = [row for row in range(len(sheet)) if (sheet[row, 8:64] == pixels[0]).all()]
    np.testing.assert_array_equal(sheet[top : top + 40, 8:64], pixels)
    shown = overlay(pixels, labels, class_colours(NAMES), SHEET_ALPHA)
    np.testing.assert_array_equal(sheet[top : top + 40, 72:128], shown)


def test_several_images_are_mapped_in_one_call_and_told_in_a_report(ovrs, model, image, tmp_path):
    other = image.with_name("village.png")
    Image.open(image).convert("L").save(other)
    out = tmp_path / "out"
    text = ovrs("predict", image, other, *model, "--classes", *CLASSES, "--out", out, "--no-overlay")
    endings = ("labels.tif", "labels.tif.aux.xml", "labels.qml", "areas.csv", "manifest.json")
    expected = {f"{stem}_{ending}" for stem in ("town", "village") for ending in endings}
    assert {path.name for path in out.iterdir()} == expected | {"report.json"}
    assert "2 of 2 maps in" in text


def test_bad_image_ends_in_an_exit_code_and_the_others_are_mapped(ovrs, model, image, tmp_path, capsys):
    bad = image.with_name("bad.tif")
    bad.write_text("no image")
    assert refusal(ovrs, bad, image, *model, "--classes", *CLASSES, "--out", tmp_path / "out") == 1
    shown = capsys.readouterr()
    assert f"{bad}: {bad} cannot be read" in shown.err
    assert "1 of 2 maps" in shown.out
    assert (tmp_path / "out/town_labels.tif").is_file()


def test_more_classes_than_a_byte_holds_take_two(ovrs, model, image, tmp_path):
    ovrs("predict", image, *model, "--classes", *(f"thing {i}" for i in range(256)), "--out", tmp_path)
    assert read(tmp_path / "town_labels.tif").dtype == np.uint16


def test_classes_and_colours_may_stand_in_a_file(ovrs, model, image, tmp_path):
    (tmp_path / "landuse.yaml").write_text("classes: [building|house, road]\ncolours: {road: '#010203'}\n")
    ovrs("predict", image, *model, "--classes-file", tmp_path / "landuse.yaml", "--out", tmp_path / "a")
    options = ("--palette", "road=#010203", "--classes", "building|house", "road")
    ovrs("predict", image, *model, *options, "--out", tmp_path / "b")
    assert (tmp_path / "a/town_labels.qml").read_bytes() == (tmp_path / "b/town_labels.qml").read_bytes()
    assert "#010203" in (tmp_path / "a/town_labels.qml").read_text()
    (tmp_path / "landuse.yaml").write_text("road: 1\n")
    assert "must be a list of classes" in refusal(ovrs, image, *model, "--classes-file", tmp_path / "landuse.yaml")


def test_one_class_is_mapped_against_everything_else(ovrs, model, image, trained, tmp_path):
    ovrs("predict", image, *model, "--classes", "road", "--threshold", "0.3", "--scores", "--out", tmp_path)
    with rasterio.open(tmp_path / "town_scores.tif") as dataset:
        assert dataset.descriptions == ("road",)
        probability = dataset.read(1) * dataset.scales[0]
    labels = read(tmp_path / "town_labels.tif")
    sure = np.abs(probability - 0.3) > 0.004  # of a byte's precision
    np.testing.assert_array_equal(labels[sure], np.where(probability < 0.3, 1, 0)[sure])
    with rasterio.open(tmp_path / "town_labels.tif") as dataset:
        assert json.loads(dataset.tags()["OVRS_CLASSES"]) == ["road", "other"]


@pytest.mark.parametrize("option", [("--batch-size", "5"), pytest.param(("--workers", "2"), marks=pytest.mark.heavy)])
def test_batches_and_processes_change_no_pixel(ovrs, model, image, tmp_path, option):
    words = ("predict", image, *model, "--scores", "--classes", *CLASSES)
    ovrs(*words, "--out", tmp_path / "a")
    ovrs(*words, "--out", tmp_path / "b", *option)
    for name in ("labels", "scores"):
        assert (tmp_path / f"a/town_{name}.tif").read_bytes() == (tmp_path / f"b/town_{name}.tif").read_bytes()


@pytest.mark.parametrize("before", [[], ["other.png"]])
def test_image_after_the_classes_is_not_taken_for_one(ovrs, model, image, before):
    message = refusal(ovrs, *before, *model, "--classes", "road", "water", image)
    assert f"--classes took the file {image} for a class: put the images before" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "road", "water"], "no image given"),
        (["town.png"], "no classes given"),
        (["town.png", "--classes", "a", "b", "--palette", "blue"], "must look like water=#1e90ff"),
        (["town.png", "--classes", "a", "b", "--aoi", "1", "2", "x", "3"], "four numbers"),
        (["town.png", "--classes", "a", "b", "--gsd", "coarse"], "--gsd must be metres per pixel"),
        (["town.png", "--executor", "spark", "--classes", "a", "b"], "--executor must be one of local, ray"),
        (["town.png", "--vector", "shp", "--classes", "a", "b"], "vector must be one of"),
    ],
)
def test_words_without_sense_end_in_a_message(ovrs, model, words, message):
    assert message in refusal(ovrs, *model, *words)


def test_without_a_model_and_without_network_it_says_what_to_fetch(ovrs, no_network):
    message = refusal(ovrs, "town.png", "--classes", "road", "water")
    assert message.startswith("ovrs: no model was named")
    assert "/ViT-B-16.pt: no network" in message
    assert f"put the file at {no_network / 'ViT-B-16.pt'}" in message


def test_without_a_model_a_file_as_openais_maps_an_image(ovrs, default_model, image, tmp_path):
    ovrs("predict", image, "--classes", "building|house", "road", "--out", tmp_path / "a")
    named = ("--config-file", default_model)
    ovrs("predict", image, *named, "--classes", "building|house", "road", "--out", tmp_path / "b")
    assert read(tmp_path / "a/town_labels.tif").shape == (40, 56)
    assert (tmp_path / "a/town_labels.tif").read_bytes() == (tmp_path / "b/town_labels.tif").read_bytes()
    with rasterio.open(tmp_path / "a/town_labels.tif") as dataset:
        assert json.loads(dataset.tags()["OVRS_CLASSES"]) == ["building", "road"]


def test_choice_of_a_model_is_told(ovrs, default_model, capsys):
    refusal(ovrs, "no such image.png", "--classes", "road", "water")
    assert f"No model named: using {default_model}, which needs no training." in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--weights", "w.pth"], ["--model", "x", "--config-file", "c.yaml"]])
def test_without_trained_weights_it_says_what_to_do(ovrs, words):
    assert "name a trained model" in refusal(ovrs, "town.png", *words, "--classes", "road", "water")


def test_head_that_was_not_trained_does_not_predict(ovrs, image, tiny_cfg, tmp_path):
    config = tmp_path / "untrained.yaml"
    config.write_text(tiny_cfg.dump(), encoding="utf-8")
    message = refusal(ovrs, image, "--config-file", config, "--classes", "road", "water")
    assert "before it is trained" in message


def test_ground_size_of_the_model_comes_from_the_card_of_its_training_data(trained, scenes, tmp_path):
    from ovrs.config import load_config
    from ovrs.data import load_card
    from ovrs.errors import ConfigError
    from ovrs.predictor import trained_ground_size

    cfg = load_config(trained / "config.yaml")
    assert trained_ground_size(cfg) == load_card(scenes / "scenes.yaml").gsd_m > 0
    resized = load_config(trained / "config.yaml", ["INPUT.GSD", "0.3"])
    assert trained_ground_size(resized) == 0.3
    other = load_config(trained / "config.yaml", ["DATASETS.TRAIN", "['gsnet_landdiscover50k_40_train']"])
    with pytest.raises(ConfigError, match=r"mixed \(0.25-30\) of its ground size, which is no single number"):
        trained_ground_size(other)


def test_unknown_model_is_told(ovrs):
    assert "gsnet-vitb61" in refusal(ovrs, "town.png", "--model", "gsnet-vitb61", "--classes", "road", "water")


def test_files_of_the_user_beside_the_map_are_kept_unless_told_otherwise(ovrs, model, image, tmp_path, capsys):
    own = [tmp_path / f"out/town_{name}" for name in ("labels.png", "overlay.png")]
    own[0].parent.mkdir()
    for path in own:
        path.write_text("mine")
    words = (image, *model, "--classes", *CLASSES, "--out", tmp_path / "out")
    assert refusal(ovrs, *words) == 1
    assert "no earlier run made" in capsys.readouterr().err
    assert [path.read_text() for path in own] == ["mine", "mine"]
    ovrs("predict", *words, "--no-overlay")
    assert [path.read_text() for path in own] == ["mine", "mine"]
    ovrs("predict", *words, "--overwrite")
    assert own[0].read_text() == "mine"
    assert Image.open(own[1]).size[0] > 100
