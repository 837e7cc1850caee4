"""ovrs predict: the files that it writes, and how it refuses."""

import numpy as np
import pytest
from PIL import Image

from ovrs import Predictor
from ovrs.visualization import SHEET_ALPHA, overlay, palette

CLASSES = ("building|house", "road", "open water")


@pytest.fixture
def model(trained):
    """The arguments that name a trained model."""
    return ("--config-file", trained / "config.yaml", "--weights", trained / "model_final.pth")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "my images" / "town.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)).save(path)
    return path


def test_label_file_holds_the_predicted_indices_under_the_palette(ovrs, model, image, trained, tmp_path):
    ovrs("predict", image, *model, "--classes", *CLASSES, "--output", tmp_path / "new folder")
    labels = Image.open(tmp_path / "new folder" / "town_labels.png")
    expected = Predictor.from_files(trained / "config.yaml", trained / "model_final.pth")(image, CLASSES).labels
    assert labels.mode == "P"
    np.testing.assert_array_equal(np.asarray(labels), expected)
    np.testing.assert_array_equal(np.asarray(labels.convert("RGB")), palette(3)[expected])


def test_overlay_shows_the_image_beside_the_prediction(ovrs, model, image, tmp_path):
    ovrs("predict", *model, image, "--classes", *CLASSES, "--output", tmp_path)
    sheet = np.asarray(Image.open(tmp_path / "town_overlay.png"))
    labels = np.asarray(Image.open(tmp_path / "town_labels.png"))
    pixels = np.asarray(Image.open(image))
    (top,) = [row for row in range(len(sheet)) if (sheet[row, 8:64] == pixels[0]).all()]
    np.testing.assert_array_equal(sheet[top : top + 40, 8:64], pixels)
    shown = overlay(pixels, labels, palette(len(CLASSES)), SHEET_ALPHA)
    np.testing.assert_array_equal(sheet[top : top + 40, 72:128], shown)


def test_several_images_are_predicted_in_one_call(ovrs, model, image, tmp_path):
    other = image.with_name("village.png")
    Image.open(image).convert("L").save(other)
    ovrs("predict", image, other, *model, "--classes", *CLASSES, "--output", tmp_path / "out")
    names = {f"{stem}_{kind}.png" for stem in ("town", "village") for kind in ("labels", "overlay")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_every_index_fits_where_there_are_as_many_classes_as_a_palette_holds(ovrs, model, image, tmp_path):
    ovrs("predict", image, *model, "--classes", *(f"thing {i}" for i in range(256)), "--output", tmp_path)
    labels = Image.open(tmp_path / "town_labels.png")
    np.testing.assert_array_equal(np.asarray(labels.convert("RGB")), palette(256)[np.asarray(labels)])


def test_more_classes_than_a_palette_holds_are_refused(ovrs):
    with pytest.raises(SystemExit) as caught:
        ovrs("predict", "image.png", "--config-file", "c", "--weights", "w", "--classes", *range(257))
    assert "--classes: 257 given; a palette PNG holds at most 256" in caught.value.code


def test_images_whose_results_would_overwrite_each_other_are_refused(ovrs):
    images = ("east/town.png", "west/town.jpg", "other.png")
    with pytest.raises(SystemExit) as caught:
        ovrs("predict", *images, "--config-file", "c", "--weights", "w", "--classes", "a", "b")
    assert "several images are called town;" in caught.value.code


@pytest.mark.parametrize("before", [[], ["other.png"]])
def test_image_after_the_classes_is_not_taken_for_one(ovrs, model, image, before):
    with pytest.raises(SystemExit) as caught:
        ovrs("predict", *before, *model, "--classes", "road", "water", image)
    assert f"--classes took the file {image} for a class: put the images before" in caught.value.code


def test_no_image_ends_in_a_message(ovrs, model):
    with pytest.raises(SystemExit) as caught:
        ovrs("predict", *model, "--classes", "road", "water")
    assert "no image given" in caught.value.code


def test_one_class_ends_in_a_message(ovrs, model, image, tmp_path):
    with pytest.raises(SystemExit) as caught:
        ovrs("predict", image, *model, "--classes", "road", "--output", tmp_path / "out")
    assert caught.value.code.startswith("ovrs: a vocabulary needs at least 2 classes, got 1: ['road']")
    assert not (tmp_path / "out").exists()
