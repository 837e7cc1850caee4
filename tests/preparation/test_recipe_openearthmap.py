"""OpenEarthMap: listed images of all sizes, with and without those of xBD."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

SHAPES = {"aachen_1": (600, 1024), "aachen_2": (300, 400), "ica_1": (512, 512), "flood_1": (512, 512)}
LISTS = {"train": ["aachen_1", "flood_1"], "val": ["aachen_2", "ica_1"], "test": ["aachen_3"]}
ROOT = "OpenEarthMap_wo_xBD"


@pytest.fixture
def regions(make):
    """Return {stem: (image, ids 0..8)}."""
    return {
        stem: (make.image(*shape, seed), make.classes(*shape, 9, seed, block=40))
        for seed, (stem, shape) in enumerate(SHAPES.items())
    }


@pytest.fixture
def files(make, regions):
    """The download: labels of all listed images, images of all but xBD (flood), an image for testing."""
    content = {f"{name}.txt": "".join(f"{stem}.tif\n" for stem in stems).encode() for name, stems in LISTS.items()}
    content["xbd_files.csv"] = b"flood_1.tif\n"
    content["aachen/images/aachen_3.tif"] = make.encoded(make.image(512, 512), "TIFF")
    for stem, (image, ids) in regions.items():
        region = stem.partition("_")[0]
        content[f"{region}/labels/{stem}.tif"] = make.encoded(ids, "TIFF")
        if region != "flood":
            content[f"{region}/images/{stem}.tif"] = make.encoded(image, "TIFF")
    return content


@pytest.fixture
def complete(make, files, regions):
    """A folder into which the images of xBD were copied."""
    return make.tree(ROOT, {**files, "flood/images/flood_1.tif": make.encoded(regions["flood_1"][0], "TIFF")})


def test_last_window_ends_at_the_border(complete, regions, prepared, load):
    prepared(card_of("hg_openearthmap_8"), complete)
    pairs = load("hg_openearthmap_8_train")
    windows = [f"aachen_1_{top}_{top + 512}_{left}_{left + 512}" for top in (0, 88) for left in (0, 512)]
    assert sorted(pairs) == sorted([*windows, "flood_1_0_512_0_512"])
    image, ids = regions["aachen_1"]
    for top in (0, 88):
        for left in (0, 512):
            found, labels = pairs[f"aachen_1_{top}_{top + 512}_{left}_{left + 512}"]
            window = slice(top, top + 512), slice(left, left + 512)
            np.testing.assert_array_equal(found, image[window])
            np.testing.assert_array_equal(labels, np.where(ids[window] == 0, IGNORE_LABEL, ids[window].astype(int) - 1))


def test_smaller_image_is_filled_up_with_ignored_pixels(complete, regions, prepared, load):
    prepared(card_of("hg_openearthmap_8"), complete)
    image, labels = load("hg_openearthmap_8_val")["aachen_2_0_512_0_512"]
    found, ids = regions["aachen_2"]
    np.testing.assert_array_equal(image[:300, :400], found)
    np.testing.assert_array_equal(labels[:300, :400], np.where(ids == 0, IGNORE_LABEL, ids.astype(int) - 1))
    for pixels, value in ((image, 0), (labels, IGNORE_LABEL)):
        assert (pixels[300:] == value).all()
        assert (pixels[:, 400:] == value).all()


def test_images_for_testing_are_left_out(complete, prepared, load, caplog):
    prepared(card_of("hg_openearthmap_8"), complete)
    for split in ("train", "val"):
        assert not [stem for stem in load(f"hg_openearthmap_8_{split}") if stem.startswith("aachen_3")]
    assert "in no list" not in caplog.text


def test_missing_images_of_xbd_are_told_and_counted(make, files, prepared, load, caplog):
    summary = prepared(
        card_of("hg_openearthmap_8", counts={"train_originals": 2, "val_originals": 2}),
        make.archive(f"{ROOT}.zip", {f"{ROOT}/{name}": content for name, content in files.items()}),
    )
    assert (
        "1 of 4 listed images are not in the source: flood_1. The images of xBD are not in the download" in caplog.text
    )
    assert summary.surprises == ("hg_openearthmap_8_train: 1 original images, but 2 were expected",)
    assert len(load("hg_openearthmap_8_train")) == 4


def test_with_xbd_nothing_is_missing(complete, prepared, caplog):
    counts = {"train_originals": 2, "val_originals": 2}
    assert prepared(card_of("hg_openearthmap_8", counts=counts), complete, strict=True).surprises == ()
    assert "not in the source" not in caplog.text


def test_card_counts_the_images_of_the_lists():
    counts = card_of("hg_openearthmap_8").source["counts"]
    assert (counts["train_originals"], counts["val_originals"]) == (3000, 500)


def test_image_of_no_list_is_told_whatever_its_region(complete, make, prepared, caplog):
    make.tree(f"{ROOT}/bogota", {"images/bogota_1.tif": b"", "labels/bogota_1.tif": b""})
    prepared(card_of("hg_openearthmap_8"), complete)
    assert "1 images are in no list and left out: bogota_1." in caplog.text


def test_listed_image_without_labels_is_named(complete, prepared):
    (complete / "ica/labels/ica_1.tif").unlink()
    with pytest.raises(DataError, match=r"1 images without labels: .*ica/images/ica_1\.tif"):
        prepared(card_of("hg_openearthmap_8"), complete)


def test_image_in_two_lists_is_refused(complete, prepared):
    (complete / "val.txt").write_text("ica_1.tif\naachen_1.tif\n")
    with pytest.raises(DataError, match=r"val\.txt and .*train\.txt both list aachen_1"):
        prepared(card_of("hg_openearthmap_8"), complete)


def test_unknown_id_is_refused(complete, make, regions, prepared):
    ids = regions["ica_1"][1]
    ids[30, 40] = 9
    make.tree(f"{ROOT}/ica/labels", {"ica_1.tif": make.encoded(ids, "TIFF")})
    with pytest.raises(DataError, match=r"ica_1\.tif hold .*: 9 \(1 pixels, the first at row 30, column 40\)"):
        prepared(card_of("hg_openearthmap_8"), complete)
