"""Globe230k: splits by list, validation and test together, images untouched, 0 unlabelled."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

SIDE = 64
LISTS = {"train": ["data_3", "data_10", "data_7"], "val": ["data_1"], "test": ["data_2", "data_20"]}
STEMS = [stem for stems in LISTS.values() for stem in stems]


@pytest.fixture
def images(make):
    """Return {stem: the bytes of its JPEG file}."""
    return {stem: make.encoded(make.image(SIDE, SIDE, seed), "JPEG") for seed, stem in enumerate(STEMS)}


@pytest.fixture
def ids(make):
    """Return {stem: ids 0..10}."""
    return {stem: make.classes(SIDE, SIDE, 11, seed, block=16) for seed, stem in enumerate(STEMS)}


@pytest.fixture
def download(make, images, ids):
    """An archive of images, one of annotations, and the lists beside them."""
    make.archive("image_patch.zip", {f"image_patch/{stem}.jpg": image for stem, image in images.items()})
    make.archive("label_patch.zip", {f"label_patch/{stem}.png": make.encoded(ids[stem], "PNG") for stem in STEMS})
    make.tree("lists", {f"{name}.txt": "\n".join(stems).encode() for name, stems in LISTS.items()})
    return make.folder


def test_lists_make_the_splits_and_val_test_is_their_union(download, ids, prepared, load, out):
    prepared(card_of("hg_globe230k_10"), download)
    splits = {**LISTS, "val_test": LISTS["val"] + LISTS["test"]}
    for split, stems in splits.items():
        pairs = load(f"hg_globe230k_10_{split}")
        assert sorted(pairs) == sorted(stems)
        for stem in stems:
            expected = np.where(ids[stem] == 0, IGNORE_LABEL, ids[stem].astype(int) - 1)  # 1 is the first class
            np.testing.assert_array_equal(pairs[stem][1], expected)


def test_images_are_copied_and_the_union_takes_no_room(download, images, prepared, out):
    prepared(card_of("hg_globe230k_10"), download)
    folder = out / "Globe230k_512/img_dir"
    for split, stems in LISTS.items():
        for stem in stems:
            assert (folder / split / f"{stem}.jpg").read_bytes() == images[stem]
    for split in ("val", "test"):
        for path in (folder / split).iterdir():
            assert path.samefile(folder / "val_test" / path.name)


def test_share_of_unlabelled_pixels_is_printed(download, ids, prepared):
    summary = prepared(card_of("hg_globe230k_10"), download)
    share = np.mean([ids[stem] == 0 for stem in LISTS["train"]])
    assert 0.02 < share < 0.5
    assert "hg_globe230k_10_train: 3 pairs are in" in str(summary)
    assert f"({share:.1%} of their pixels are ignored)" in str(summary).splitlines()[0]


def test_unpacked_folders_and_lists_with_endings_and_longer_names(make, images, ids, prepared, load):
    make.tree("globe/images", {f"{stem}.jpg": image for stem, image in images.items()})
    make.tree("globe/labels", {f"{stem}.png": make.encoded(ids[stem], "PNG") for stem in STEMS})
    lists = {
        f"globe_{name}-set.txt": "".join(f"images/{stem}.jpg\r\n" for stem in stems) for name, stems in LISTS.items()
    }
    make.tree("globe", {name: text.encode() for name, text in lists.items()})
    prepared(card_of("hg_globe230k_10"), make.folder / "globe")
    assert sorted(load("hg_globe230k_10_test")) == sorted(LISTS["test"])


def test_labels_of_another_modality_are_refused(download, make, prepared):
    make.tree("DEM", {"data_3.png": b""})
    with pytest.raises(DataError, match=r"data_3\.png and .*data_3\.png are the same thing twice"):
        prepared(card_of("hg_globe230k_10"), download)


def test_missing_list_is_named(download, prepared):
    (download / "lists/val.txt").unlink()
    with pytest.raises(DataError, match=r"test\.txt, but not val\.txt; add what is missing"):
        prepared(card_of("hg_globe230k_10"), download)


def test_listed_image_that_is_missing_is_told(download, prepared, load, caplog):
    (download / "lists/val.txt").write_text("data_1\ndata_99")
    prepared(card_of("hg_globe230k_10"), download)
    assert "1 of 7 listed images are not in the source: data_99. Is the download complete?" in caplog.text
    assert sorted(load("hg_globe230k_10_val")) == ["data_1"]


def test_image_of_no_list_is_told(download, prepared, load, caplog):
    (download / "lists/test.txt").write_text("data_2")
    prepared(card_of("hg_globe230k_10"), download)
    assert "1 images are in no list and left out: data_20." in caplog.text
    assert sorted(load("hg_globe230k_10_val_test")) == ["data_1", "data_2"]


@pytest.mark.parametrize(("archive", "message"), [("image", "1 labels without image"), ("label", "1 images without")])
def test_missing_partner_is_named(download, make, images, ids, prepared, archive, message):
    kept = {"image": {f"{stem}.jpg": images[stem] for stem in STEMS[1:]}, "label": {}}
    kept["label"] = {f"{stem}.png": make.encoded(ids[stem], "PNG") for stem in STEMS[1:]}
    make.archive(f"{archive}_patch.zip", kept[archive])
    with pytest.raises(DataError, match=rf"{message}.*data_3\."):
        prepared(card_of("hg_globe230k_10"), download)


def test_unknown_id_is_refused(download, make, ids, prepared):
    ids["data_20"][9, 8] = 11
    make.archive("label_patch.zip", {f"{stem}.png": make.encoded(ids[stem], "PNG") for stem in STEMS})
    with pytest.raises(DataError, match=r"data_20\.png hold .*11 \(1 pixels, the first at row 9, column 8\)"):
        prepared(card_of("hg_globe230k_10"), download)
