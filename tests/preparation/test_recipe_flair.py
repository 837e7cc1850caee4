"""FLAIR #1: three of five bands, 1 is building, the domain makes the split."""

import numpy as np
import pytest
import rasterio
from miniatures import card_of
from PIL import Image
from rasterio.io import MemoryFile

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

SIDE = 64
PLACE = rasterio.Affine(0.2, 0, 0, 0, -0.2, 0)
# domain and zone -> number: one domain of the official validation list, one of the test list, one of neither
PATCHES = {("D014_2020", "Z1_NN"): "003401", ("D012_2019", "Z2_UU"): "061713", ("D041_2021", "Z1_NN"): "020000"}
VAL, TEST, TRAIN = PATCHES.values()


def tiff(pixels):
    """Return a GeoTIFF of any number of bands."""
    bands = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    layout = {"height": SIDE, "width": SIDE, "count": len(bands), "dtype": "uint8", "transform": PLACE}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **layout) as dataset:
            dataset.write(bands)
        return memory.read()


@pytest.fixture
def patches(make):
    """Return {number: (red, green, blue, infrared and elevation, ids 1..19)}."""
    drawn = {}
    for seed, number in enumerate(PATCHES.values()):
        bands = np.dstack([make.image(SIDE, SIDE, seed), 255 - make.image(SIDE, SIDE, seed + 7)[..., :2]])
        drawn[number] = bands, make.classes(SIDE, SIDE, 19, seed, block=8) + 1
    return drawn


@pytest.fixture
def download(make, patches):
    """The archives for training and for testing, each with images or labels, nested by domain and zone."""
    for folder, numbers in (("train", (VAL, TRAIN)), ("test", (TEST,))):
        names = {number: "/".join(path) for path, number in PATCHES.items() if number in numbers}
        images, labels = {
            "train": ("flair_aerial_train", "flair_labels_train"),
            "test": ("flair_1_aerial_test", "flair_1_labels_test"),
        }[folder]
        make.archive(
            f"{images}.zip",
            {f"{images}/{path}/img/IMG_{number}.tif": tiff(patches[number][0]) for number, path in names.items()},
        )
        make.archive(
            f"{labels}.zip",
            {f"{labels}/{path}/msk/MSK_{number}.tif": tiff(patches[number][1]) for number, path in names.items()},
        )
    return make.folder


def truth(ids):
    return np.where(ids > 12, IGNORE_LABEL, ids.astype(int) - 1)


def test_domains_make_the_splits_of_hg(download, patches, prepared, load):
    prepared(card_of("hg_flair1_12"), download)
    for split, number in (("train", TRAIN), ("val", TEST), ("val_official", VAL)):
        ((stem, (image, labels)),) = load(f"hg_flair1_12_{split}").items()
        assert stem == f"flair_{number}"
        np.testing.assert_array_equal(image, patches[number][0][..., :3])
        np.testing.assert_array_equal(labels, truth(patches[number][1]))


def test_gsnet_gets_the_test_domains_alone(download, patches, prepared, load):
    prepared(card_of("gsnet_flair_12"), download)
    ((stem, (image, labels)),) = load("gsnet_flair_12_test").items()
    assert stem == f"flair_{TEST}"
    np.testing.assert_array_equal(image, patches[TEST][0][..., :3])
    np.testing.assert_array_equal(labels, truth(patches[TEST][1]))


def test_images_are_written_with_three_bands(download, prepared, out):
    prepared(card_of("hg_flair1_12"), download)
    (path,) = (out / "FLAIR1_512/img_dir/val").iterdir()
    with Image.open(path) as image:
        assert image.mode == "RGB"


def test_unpacked_folders_give_the_same(make, patches, prepared, load):
    bands, ids = patches[TEST]
    make.tree("flair/D012_2019/Z2_UU", {f"img/IMG_{TEST}.tif": tiff(bands), f"msk/MSK_{TEST}.tif": tiff(ids)})
    prepared(card_of("gsnet_flair_12"), make.folder / "flair")
    np.testing.assert_array_equal(load("gsnet_flair_12_test")[f"flair_{TEST}"][1], truth(ids))


def test_images_for_training_need_no_labels_where_only_the_test_is_prepared(download, prepared, load):
    (download / "flair_labels_train.zip").unlink()
    prepared(card_of("gsnet_flair_12"), download)
    assert len(load("gsnet_flair_12_test")) == 1


def test_download_for_training_has_nothing_for_the_test(download, prepared):
    for path in download.glob("flair_1_*.zip"):
        path.unlink()
    with pytest.raises(DataError, match=r"nothing that belongs to gsnet_flair_12; fetch flair_1_aerial_test and"):
        prepared(card_of("gsnet_flair_12"), download)


def test_zero_is_refused_because_no_class_has_it(download, make, patches, prepared):
    ids = patches[TEST][1]
    ids[2, 5] = 0
    make.archive("flair_1_labels_test.zip", {f"D012_2019/Z2_UU/msk/MSK_{TEST}.tif": tiff(ids)})
    with pytest.raises(DataError, match=rf"MSK_{TEST}\.tif hold .*: 0 \(1 pixels, the first at row 2, column 5\)"):
        prepared(card_of("gsnet_flair_12"), download)


def test_image_without_labels_is_named(download, prepared):
    (download / "flair_labels_train.zip").unlink()
    with pytest.raises(DataError, match=rf"2 images without labels: .*IMG_{VAL}\.tif"):
        prepared(card_of("hg_flair1_12"), download)


def test_number_that_two_domains_share_is_refused(download, make, patches, prepared):
    bands, ids = patches[TEST]
    make.tree("more/D022_2021/Z2_UU", {f"img/IMG_{TEST}.tif": tiff(bands), f"msk/MSK_{TEST}.tif": tiff(ids)})
    with pytest.raises(DataError, match=rf"several originals would be called flair_{TEST}"):
        prepared(card_of("gsnet_flair_12"), download)
