"""GID: scenes in true colours cut into full windows, validation scenes drawn."""

import json

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

# built-up, farmland, forest, meadow, water, unlabelled
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 255, 255), (255, 255, 0), (0, 0, 255), (0, 0, 0)]
UNLABELLED = 5
HEIGHT, WIDTH = 520, 1030  # one row of two windows; what is left is dropped
SCENES = [f"GF2_PMS{1 + number % 2}__L1A000056453{number}-MSS{1 + number % 2}" for number in range(3)]
DRAW = {"seed": 0, "count": 1, "of": 3, "drawn": ["val"], "others": ["train"]}
COUNTS = {"train_originals": 2, "val_originals": 1, "train": 4, "val": 2}
FOLDER = "Large-scale Classification_5classes"
CARD = card_of("hg_gid_large_5", draw=DRAW, counts=COUNTS)


@pytest.fixture
def scenes(make):
    """Return {scene: (image, classes 0..5)}."""
    return {
        scene: (make.image(HEIGHT, WIDTH, seed), make.classes(HEIGHT, WIDTH, 6, seed))
        for seed, scene in enumerate(SCENES)
    }


@pytest.fixture
def files(make, scenes):
    """The files as the authors call them; the images in near infrared are spoilt: nobody should look at them."""
    content = {}
    for scene, (image, classes) in scenes.items():
        content[f"image_RGB/{scene}.tif"] = make.encoded(image, "TIFF")
        content[f"image_NirRGB/{scene}.tif"] = b"spoilt"
        content[f"label_5classes/{scene}_label.tif"] = make.encoded(make.painted(classes, COLOURS), "TIFF")
    return content


def drawn_scene(out):
    jobs = json.loads((out / "GID_Large_RGB_512/manifest-hg_gid_large_5.json").read_text())["jobs"]
    (scene,) = (job["stem"] for job in jobs if job["splits"] == ["val"])
    return scene


@pytest.mark.parametrize("packed", [True, False])
def test_full_windows_hold_the_pixels_of_the_scene(make, files, scenes, prepared, load, out, packed):
    source = make.archive("gid/GID.tar.gz", {f"{FOLDER}/{name}": content for name, content in files.items()}).parent
    if not packed:
        (source / "GID.tar.gz").unlink()
        source = make.tree(FOLDER, files)
    assert prepared(CARD, source).surprises == ()
    chosen = drawn_scene(out)
    for split in ("train", "val"):
        pairs = load(f"hg_gid_large_5_{split}")
        members = [scene for scene in SCENES if (scene == chosen) is (split == "val")]
        assert sorted(pairs) == sorted(f"{scene}_0_512_{left}_{left + 512}" for scene in members for left in (0, 512))
        for scene in members:
            for left in (0, 512):
                image, labels = pairs[f"{scene}_0_512_{left}_{left + 512}"]
                window = slice(512), slice(left, left + 512)
                np.testing.assert_array_equal(image, scenes[scene][0][window])
                classes = scenes[scene][1][window]
                np.testing.assert_array_equal(labels, np.where(classes == UNLABELLED, IGNORE_LABEL, classes))


def test_scenes_are_drawn_by_the_seed_alone(make, files, prepared, out, tmp_path):
    prepared(CARD, make.tree(FOLDER, files))
    assert drawn_scene(out) == "GF2_PMS1__L1A0000564532-MSS1"  # worked out once: another one is another data set


def test_card_draws_the_numbers_of_the_paper():
    draw, counts = (card_of("hg_gid_large_5").source[key] for key in ("draw", "counts"))
    assert (draw["count"], draw["of"], draw["drawn"], draw["others"]) == (30, 150, ["val"], ["train"])
    windows = (6800 // 512) * (7200 // 512)
    assert (counts["train"], counts["val"]) == (120 * windows, 30 * windows)


def test_fewer_scenes_than_there_are_would_draw_others(make, files, prepared):
    folder = make.tree(FOLDER, files)
    (folder / f"image_RGB/{SCENES[0]}.tif").unlink()
    with pytest.raises(DataError, match=r"holds 2 scenes in image_RGB instead of 3; those for val are drawn from all"):
        prepared(CARD, folder)


def test_missing_labels_are_named(make, files, prepared):
    folder = make.tree(FOLDER, files)
    (folder / f"label_5classes/{SCENES[1]}_label.tif").unlink()
    with pytest.raises(DataError, match=rf"1 images without labels: .*{SCENES[1]}\.tif"):
        prepared(CARD, folder)


def test_images_in_near_infrared_alone_are_not_taken(make, files, prepared):
    files = {name: content for name, content in files.items() if "image_RGB" not in name}
    with pytest.raises(DataError, match=r"holds no file like 'image_RGB/GF2_PMS1__L1A<number>-MSS1\.tif'"):
        prepared(CARD, make.tree(FOLDER, files))


def test_labels_of_fifteen_classes_are_not_taken(make, files, prepared):
    files = {name.replace("label_5classes", "label_15classes"): content for name, content in files.items()}
    with pytest.raises(DataError, match=r"holds no file like 'label_5classes/"):
        prepared(CARD, make.tree(FOLDER, files))


def test_colour_of_the_fifteen_classes_is_refused(make, files, scenes, prepared):
    painted = make.painted(scenes[SCENES[2]][1], COLOURS)
    painted[7, 8] = (200, 0, 0)
    files[f"label_5classes/{SCENES[2]}_label.tif"] = make.encoded(painted, "TIFF")
    with pytest.raises(
        DataError, match=rf"{SCENES[2]}_label\.tif hold .*200,0,0 \(1 pixels, the first at row 7, column 8"
    ):
        prepared(CARD, make.tree(FOLDER, files))


def test_folder_holds_the_text_by_which_the_original_project_knows_the_set(make, files, prepared, out):
    prepared(CARD, make.tree(FOLDER, files))
    assert all("GID_Large" in str(path.relative_to(out)) for path in out.rglob("*.tif"))
