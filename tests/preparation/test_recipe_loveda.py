"""LoveDA: scenes flattened, no-data told from background, archives known by their checksums."""

import hashlib

import numpy as np
import pytest
from miniatures import card_of
from PIL import Image

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

SIDE = 1024
IMAGES = {("Train", "Rural"): 0, ("Train", "Urban"): 1366, ("Val", "Rural"): 2522, ("Val", "Urban"): 3514}


@pytest.fixture
def scenes(make):
    """Return {number: (image, ids 0..7)}."""
    return {
        number: (make.image(SIDE, SIDE, number), make.classes(SIDE, SIDE, 8, number, block=64))
        for number in IMAGES.values()
    }


@pytest.fixture
def archives(make, scenes):
    """Train.zip and Val.zip as on Zenodo."""
    for name in ("Train", "Val"):
        files = {}
        for (split, scene), number in IMAGES.items():
            if split == name:
                image, ids = scenes[number]
                files[f"{name}/{scene}/images_png/{number}.png"] = make.encoded(image, "PNG")
                files[f"{name}/{scene}/masks_png/{number}.png"] = make.encoded(ids, "PNG")
        make.archive(f"{name}.zip", files)
    return make.folder


def md5(folder):
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.glob("*.zip")}


def test_hg_gets_quarters_without_no_data_and_background(archives, scenes, prepared, load):
    prepared(card_of("hg_loveda_6", md5=md5(archives)), archives)
    for split in ("train", "val"):
        pairs = load(f"hg_loveda_6_{split}")
        numbers = [number for (name, _), number in IMAGES.items() if name.lower() == split]
        assert len(pairs) == 4 * len(numbers)
        for number in numbers:
            image, ids = scenes[number]
            for top in (0, 512):
                for left in (0, 512):
                    found, labels = pairs[f"{number}_{top}_{top + 512}_{left}_{left + 512}"]
                    window = slice(top, top + 512), slice(left, left + 512)
                    np.testing.assert_array_equal(found, image[window])
                    expected = np.where(ids[window] < 2, IGNORE_LABEL, ids[window].astype(int) - 2)
                    np.testing.assert_array_equal(labels, expected)


def test_rskt_gets_all_images_whole_with_no_data_as_a_class(archives, scenes, prepared, load, out):
    prepared(card_of("rskt_loveda_8", md5=md5(archives)), archives)
    pairs = load("rskt_loveda_8_all")
    assert sorted(pairs) == sorted(map(str, scenes))
    for number, (image, ids) in scenes.items():
        np.testing.assert_array_equal(pairs[str(number)][0], image)
        np.testing.assert_array_equal(pairs[str(number)][1], ids)


def test_images_that_stay_whole_are_copied_byte_by_byte(archives, make, prepared, out):
    prepared(card_of("rskt_loveda_8", md5=md5(archives)), archives)
    image = make.encoded(make.image(SIDE, SIDE, 0), "PNG")
    assert (out / "LoveDA/images_png/0.png").read_bytes() == image


def test_grey_image_is_not_copied_but_becomes_rgb(make, prepared, out):
    grey = make.image(SIDE, SIDE)[..., 1]
    files = {"images_png/0.png": make.encoded(grey, "PNG"), "masks_png/0.png": make.encoded(grey % 8, "PNG")}
    prepared(card_of("rskt_loveda_8"), make.tree("LoveDA/Train/Urban", files).parents[1])
    with Image.open(out / "LoveDA/images_png/0.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.stack([grey] * 3, -1))


def test_archive_with_another_checksum_is_refused_before_anything_is_written(archives, prepared, out):
    with pytest.raises(DataError, match=r"(Train|Val)\.zip has the MD5 sum .*unpack it and give the folder"):
        prepared(card_of("hg_loveda_6"), archives)
    assert not out.exists()


def test_unpacked_folders_need_no_checksum(archives, make, scenes, prepared, load):
    image, ids = scenes[0]
    files = {"images_png/0.png": make.encoded(image, "PNG"), "masks_png/0.png": make.encoded(ids, "PNG")}
    folder = make.tree("unpacked/Train/Urban", files).parent
    prepared(card_of("rskt_loveda_8"), folder)
    assert list(load("rskt_loveda_8_all")) == ["0"]


def test_number_that_occurs_twice_is_refused(make, prepared):
    files = {f"Train/{scene}/{kind}_png/7.png": b"" for scene in ("Rural", "Urban") for kind in ("images", "masks")}
    with pytest.raises(DataError, match=r"Rural/images_png/7\.png and .*Urban/images_png/7\.png have one number"):
        prepared(card_of("hg_loveda_6"), make.tree("LoveDA", files))


def test_test_images_are_left_out(archives, make, prepared, load):
    make.archive("Test.zip", {"Test/Rural/images_png/4191.png": b""})
    prepared(card_of("rskt_loveda_8", md5={}), archives)
    assert "4191" not in load("rskt_loveda_8_all")


def test_image_of_another_size_is_refused(make, prepared, out):
    image, ids = make.image(1000, 1024), make.classes(1000, 1024, 8)
    files = {"images_png/0.png": make.encoded(image, "PNG"), "masks_png/0.png": make.encoded(ids, "PNG")}
    folder = make.tree("Train/Urban", files).parent
    with pytest.raises(DataError, match=r"images_png/0\.png is 1024 x 1000 .*do not fill 1000 pixels"):
        prepared(card_of("hg_loveda_6"), folder)
