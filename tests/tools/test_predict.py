"""tools/predict.py and tools/draw_predictions.py: the files that they write, and how they refuse."""

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


# ---------------------------------------------------------------------- predict


def test_label_file_holds_the_predicted_indices_under_the_palette(run_tool, model, image, trained, tmp_path):
    run_tool("predict", *model, "--classes", *CLASSES, "--output", tmp_path / "new folder", image)
    labels = Image.open(tmp_path / "new folder" / "town_labels.png")
    expected = Predictor.from_files(trained / "config.yaml", trained / "model_final.pth")(image, CLASSES).labels
    assert labels.mode == "P"
    np.testing.assert_array_equal(np.asarray(labels), expected)
    np.testing.assert_array_equal(np.asarray(labels.convert("RGB")), palette(3)[expected])


def test_overlay_shows_the_image_beside_the_prediction(run_tool, model, image, tmp_path):
    run_tool("predict", *model, "--classes", *CLASSES, "--output", tmp_path, image)
    sheet = np.asarray(Image.open(tmp_path / "town_overlay.png"))
    labels = np.asarray(Image.open(tmp_path / "town_labels.png"))
    pixels = np.asarray(Image.open(image))
    (top,) = [row for row in range(len(sheet)) if (sheet[row, 8:64] == pixels[0]).all()]
    np.testing.assert_array_equal(sheet[top : top + 40, 8:64], pixels)
    shown = overlay(pixels, labels, palette(len(CLASSES)), SHEET_ALPHA)
    np.testing.assert_array_equal(sheet[top : top + 40, 72:128], shown)


def test_several_images_are_predicted_in_one_call(run_tool, model, image, tmp_path):
    other = image.with_name("village.png")
    Image.open(image).convert("L").save(other)
    run_tool("predict", *model, "--classes", *CLASSES, "--output", tmp_path / "out", image, other)
    names = {f"{stem}_{kind}.png" for stem in ("town", "village") for kind in ("labels", "overlay")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_every_index_fits_where_there_are_as_many_classes_as_a_palette_holds(run_tool, model, image, tmp_path):
    run_tool("predict", *model, "--classes", *(f"thing {i}" for i in range(256)), "--output", tmp_path, image)
    labels = Image.open(tmp_path / "town_labels.png")
    np.testing.assert_array_equal(np.asarray(labels.convert("RGB")), palette(256)[np.asarray(labels)])


def test_more_classes_than_a_palette_holds_are_refused(run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool(
            "predict", "--config-file", "c", "--weights", "w", "--output", "o", "image.png", "--classes", *range(257)
        )
    assert "--classes: 257 given; a palette PNG holds at most 256" in capsys.readouterr().err


def test_images_whose_results_would_overwrite_each_other_are_refused(run_tool, capsys):
    images = ("east/town.png", "west/town.jpg", "other.png")
    with pytest.raises(SystemExit):
        run_tool("predict", "--config-file", "c", "--weights", "w", "--classes", "a", "b", "--output", "o", *images)
    assert "several images are called town;" in capsys.readouterr().err


def test_one_class_ends_in_a_message(run_tool, model, image, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run_tool("predict", *model, "--classes", "road", "--output", tmp_path / "out", image)
    assert caught.value.code.startswith("predict.py: a vocabulary needs at least 2 classes, got 1: ['road']")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- draw_predictions


def test_pictures_of_a_data_set_are_drawn(run_tool, model, scenes, tmp_path):
    dataset = f"{scenes / 'scenes.yaml'}:val"
    run_tool("draw_predictions", *model, "--dataset", dataset, "--output", tmp_path / "drawn", "--limit", 2)
    drawn = sorted(path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.png"))
    assert drawn == ["scenes_val/0000.png", "scenes_val/0001.png"]


def test_keys_at_the_end_of_the_line_override_the_configuration(run_tool, model, scenes, tmp_path):
    arguments = ("--dataset", f"{scenes / 'scenes.yaml'}:val", "--output", tmp_path)
    with pytest.raises(SystemExit) as caught:
        run_tool("draw_predictions", *model, *arguments, "MODEL.GSNET.HIDDEN_DIM", 16)
    assert "model_final.pth" in caught.value.code


def test_unknown_data_set_ends_in_a_message(run_tool, model, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run_tool("draw_predictions", *model, "--dataset", tmp_path / "absent.yaml", "--output", tmp_path)
    assert caught.value.code.startswith("draw_predictions.py: ")
    assert "absent.yaml" in caught.value.code
