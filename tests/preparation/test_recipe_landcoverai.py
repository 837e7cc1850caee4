"""LandCover.ai: the tiles of the official lists, cut again from the orthophotos."""

import hashlib

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

HEIGHT, WIDTH = 1030, 1100  # two by two full tiles; a third column and a third row are cut off
TOP_LEFT = [(0, 0), (0, 512), (512, 0), (512, 512)]
EVERY, FULL = (0, 1, 3, 4), (0, 1, 2, 3)  # their numbers where cut-off tiles count, and where they do not
PHOTOS = ["M-33-20-D-c-4-2", "N-33-60-D-c-4-2"]
SPLITS = {"train": [(0, 0), (0, 3), (1, 1), (1, 2)], "val": [(0, 1), (1, 0)], "test": [(0, 2), (1, 3)]}


def lists(numbers):
    return {
        f"{split}.txt": "".join(f"{PHOTOS[photo]}_{numbers[tile]}\n" for photo, tile in tiles).encode()
        for split, tiles in SPLITS.items()
    }


@pytest.fixture
def photos(make):
    """Return {orthophoto: (image, ids 0..4)}."""
    return {
        photo: (make.image(HEIGHT, WIDTH, seed), make.classes(HEIGHT, WIDTH, 5, seed))
        for seed, photo in enumerate(PHOTOS)
    }


@pytest.fixture
def files(make, photos):
    """The archive's files, with tiles that somebody's run of the script has left: with loss, and not the originals."""
    content = {"split.py": b"", "output/M-33-20-D-c-4-2_0.jpg": b"spoilt", "output/M-33-20-D-c-4-2_0_m.png": b"spoilt"}
    for photo, (image, ids) in photos.items():
        content[f"images/{photo}.tif"] = make.encoded(image, "TIFF")
        content[f"masks/{photo}.tif"] = make.encoded(ids, "TIFF")
    return content


@pytest.mark.parametrize("numbers", [EVERY, FULL], ids=["every tile counts", "full tiles count"])
def test_listed_tiles_hold_the_pixels_of_the_orthophoto(make, files, photos, prepared, load, numbers):
    archive = make.archive("landcover.ai.v1.zip", {**files, **lists(numbers)})
    md5 = {archive.name: hashlib.md5(archive.read_bytes()).hexdigest()}
    summary = prepared(card_of("hg_landcoverai_4", md5=md5, counts={"train": 4, "val": 2, "test": 2}), archive)
    assert summary.surprises == ()
    for split, tiles in SPLITS.items():
        pairs = load(f"hg_landcoverai_4_{split}")
        assert sorted(pairs) == sorted(f"{PHOTOS[photo]}_{numbers[tile]}" for photo, tile in tiles)
        for photo, tile in tiles:
            image, labels = pairs[f"{PHOTOS[photo]}_{numbers[tile]}"]
            top, left = TOP_LEFT[tile]
            window = slice(top, top + 512), slice(left, left + 512)
            found, ids = photos[PHOTOS[photo]]
            np.testing.assert_array_equal(image, found[window])
            np.testing.assert_array_equal(labels, np.where(ids[window] == 0, IGNORE_LABEL, ids[window].astype(int) - 1))


def test_image_and_label_have_one_name(make, files, prepared, out):
    prepared(card_of("hg_landcoverai_4"), make.tree("landcover", {**files, **lists(EVERY)}))
    names = [
        sorted(path.name for path in out.glob(f"LandCover_ai_512/{kind}/val/*")) for kind in ("img_dir", "ann_dir")
    ]
    assert names[0] == names[1] == ["M-33-20-D-c-4-2_1.tif", "N-33-60-D-c-4-2_0.tif"]


def test_archive_with_another_checksum_is_refused(make, files, prepared, out):
    archive = make.archive("landcover.ai.v1.zip", {**files, **lists(EVERY)})
    with pytest.raises(DataError, match=r"landcover\.ai\.v1\.zip has the MD5 sum .* 3268c89070e8734b4e91d531c0617e03"):
        prepared(card_of("hg_landcoverai_4"), archive)
    assert not out.exists()


def test_tiles_of_the_script_alone_are_not_taken(make, files, prepared):
    tiles = {name: content for name, content in files.items() if not name.startswith(("images", "masks"))}
    with pytest.raises(DataError, match=r"holds no file like 'images/<orthophoto>\.tif'"):
        prepared(card_of("hg_landcoverai_4"), make.tree("landcover", {**tiles, **lists(EVERY)}))


def test_lists_of_another_cut_are_refused(make, files, prepared, out):
    wrong = lists(EVERY)
    wrong["val.txt"] += b"M-33-20-D-c-4-2_8\n"
    with pytest.raises(DataError, match=r"M-33-20-D-c-4-2\.tif is 1100 x 1030 .* up to M-33-20-D-c-4-2_8"):
        prepared(card_of("hg_landcoverai_4"), make.tree("landcover", {**files, **wrong}))
    assert not out.exists()


def test_line_that_names_no_tile_is_refused(make, files, prepared):
    wrong = {**lists(EVERY), "val.txt": b"M-33-20-D-c-4-2_x\n"}
    with pytest.raises(DataError, match=r"'M-33-20-D-c-4-2_x'; tiles are called <orthophoto>_<number>"):
        prepared(card_of("hg_landcoverai_4"), make.tree("landcover", {**files, **wrong}))


def test_missing_orthophoto_is_told_by_its_tiles(make, files, prepared, caplog):
    for kind in ("images", "masks"):
        del files[f"{kind}/{PHOTOS[1]}.tif"]
    prepared(card_of("hg_landcoverai_4"), make.tree("landcover", {**files, **lists(EVERY)}))
    assert "4 of 8 listed images are not in the source: N-33-60-D-c-4-2_0, " in caplog.text


def test_orthophoto_of_no_list_is_told(make, files, prepared, caplog):
    only = {"train.txt": b"M-33-20-D-c-4-2_0", "val.txt": b"M-33-20-D-c-4-2_1", "test.txt": b"M-33-20-D-c-4-2_3"}
    prepared(card_of("hg_landcoverai_4"), make.tree("landcover", {**files, **only}))
    assert "1 images are in no list and left out: N-33-60-D-c-4-2." in caplog.text


def test_missing_mask_is_named(make, files, prepared):
    del files[f"masks/{PHOTOS[0]}.tif"]
    with pytest.raises(DataError, match=r"1 images without labels: .*images/M-33-20-D-c-4-2\.tif"):
        prepared(card_of("hg_landcoverai_4"), make.tree("landcover", {**files, **lists(EVERY)}))


def test_unknown_id_is_refused(make, files, photos, prepared):
    ids = photos[PHOTOS[0]][1]
    ids[600, 30] = 5
    files[f"masks/{PHOTOS[0]}.tif"] = make.encoded(ids, "TIFF")
    with pytest.raises(DataError, match=r"masks/M-33-20-D-c-4-2\.tif hold .*: 5 \(1 pixels, the first at row 600"):
        prepared(card_of("hg_landcoverai_4"), make.tree("landcover", {**files, **lists(EVERY)}))
