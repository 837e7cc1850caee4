"""``ovrs explain`` and ``ovrs compare``: the files that they write, and how they refuse."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

CLASSES = ("--classes", "water", "tree", "roof|house")


@pytest.fixture
def image(scenes):
    return scenes / "images" / "val" / "0000.png"


def test_sheets_and_arrays_are_written(ovrs, trained_once, image, tmp_path):
    words = ("--model", trained_once, *CLASSES, "--pixel", "40,10", "--arrays", "--out", tmp_path / "look")
    said = ovrs("explain", image, *words)
    folder = tmp_path / "look" / "0000"
    assert str(folder) in said
    with np.load(folder / "arrays.npz") as arrays:
        names = set(arrays) - {"names"}
        assert arrays["scores"].shape[0] == 3
    assert {"scores", "correlation", "prior_correlation", "fused", "decoder_2", "class_attention_1"} <= names
    assert {path.name for path in folder.iterdir()} == {*(f"{name}.png" for name in names), "streams.png", "arrays.npz"}


def test_only_what_is_asked_for_is_written(ovrs, trained_once, image, tmp_path):
    ovrs("explain", image, "--model", trained_once, *CLASSES, "--show", "fused", "--out", tmp_path / "look")
    assert [path.name for path in (tmp_path / "look").rglob("*.*")] == ["fused.png"]


def test_list_needs_neither_image_nor_weights(ovrs):
    said = ovrs("explain", "--config-file", "demo/dr_seg", "--list")
    for name in ("uncertainty", "gate", "neighbours", "refined_correlation"):
        assert name in said


def test_script_of_that_name_is_the_command(load_tool_main, trained_once, image, tmp_path):
    load_tool_main("explain", image, "--model", trained_once, *CLASSES, "--show", "scores", "--out", tmp_path / "look")
    assert (tmp_path / "look" / "0000" / "scores.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pixel", "40"), "--pixel must look like 310,120"),
        (("--pixel", "64,3"), "outside the image of 64 x 64"),
        (("--show", "gate"), "--show must be one of"),
    ],
)
def test_wrong_words_end_in_a_message(ovrs, trained_once, image, tmp_path, words, message):
    with pytest.raises(SystemExit, match=message):
        ovrs("explain", image, "--model", trained_once, *CLASSES, *words, "--out", tmp_path)


def test_image_is_needed(ovrs, trained_once):
    with pytest.raises(SystemExit, match="no image given"):
        ovrs("explain", "--model", trained_once, *CLASSES)


# ---------------------------------------------------------------------- models side by side


def test_models_are_compared_on_images(ovrs, trained_once, image, tmp_path):
    sheet = tmp_path / "sheets" / "both.png"
    words = ("--models", f"first={trained_once}", f"second={trained_once}", *CLASSES, "--width", 64, "--out", sheet)
    assert str(sheet) in ovrs("compare", image, image, *words)
    drawn = np.asarray(Image.open(sheet))
    panels = [drawn[31:95, 8 + column * 72 : 72 + column * 72] for column in range(3)]
    np.testing.assert_array_equal(panels[0], np.asarray(Image.open(image)))
    np.testing.assert_array_equal(panels[1], panels[2])
    assert (panels[0] != panels[1]).any()


def test_truth_of_a_data_set_stands_beside_the_image(ovrs, trained_once, scenes, tmp_path):
    other = shutil.copytree(trained_once, tmp_path / "another run")
    dataset = f"{scenes / 'scenes.yaml'}:val"
    words = ("--models", trained_once, other, "--limit", 2, "--width", 64)
    ovrs("compare", "--dataset", dataset, *words, "--out", tmp_path / "with.png")
    width, height = Image.open(tmp_path / "with.png").size
    assert width >= 4 * 72 + 8
    assert height > 2 * 64


def test_columns_of_one_name_and_two_sources_are_refused(ovrs, trained_once, image, tmp_path):
    with pytest.raises(SystemExit, match="two columns are called 'a run'"):
        ovrs("compare", image, "--models", trained_once, trained_once, *CLASSES, "--out", tmp_path / "a.png")
    with pytest.raises(SystemExit, match="images with classes, or a data set"):
        ovrs("compare", image, "--models", trained_once, "--dataset", "x.yaml", "--out", tmp_path / "a.png")
