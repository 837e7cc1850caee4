"""UDD5 and VDD: all splits in one folder, every class scored, UDD6 and pictures of labels left alone."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError

SHAPE = (45, 60)
UDD5 = {("train", "DJI_0001"): 0, ("train", "DJI_0020"): 1, ("val", "000003"): 2}
VDD = {("train", "DJI_0001"): 0, ("val", "DJI_0002"): 1, ("test", "DJI_0003"): 2}


@pytest.fixture
def files(make):
    """Return a maker of {name: bytes} for images with ids 0..count-1 below a folder."""

    def build(folder, images, count):
        found = {}
        for (split, stem), seed in images.items():
            ids = make.classes(*SHAPE, count, seed, block=9)
            found[f"{folder}{split}/src/{stem}.JPG"] = make.encoded(make.image(*SHAPE, seed), "JPEG")
            found[f"{folder}{split}/gt/{stem}.png"] = make.encoded(ids, "PNG")
        return found

    return build


@pytest.fixture
def udd(files, make):
    """The archive of UDD, with UDD6 in it: the same images, other labels."""
    return files("UDD/UDD5/", UDD5, 5) | files("UDD/UDD6/", UDD5, 6)


@pytest.fixture
def vdd(files):
    """The files of VDD, with pictures of the labels beside them."""
    pictures = {name.replace("/gt/", "/gt_color/"): b"" for name in files("", VDD, 7) if "/gt/" in name}
    return files("", VDD, 7) | pictures


def expect(pairs, images, count, make, folder):
    """Compare a prepared set with the ids that were written; no id is ignored."""
    assert sorted(pairs) == sorted(stem for _, stem in images)
    for (_, stem), seed in images.items():
        np.testing.assert_array_equal(pairs[stem][1], make.classes(*SHAPE, count, seed, block=9))
        assert (folder / f"{stem}.JPG").read_bytes() == make.encoded(make.image(*SHAPE, seed), "JPEG")


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_udd5_is_taken_out_of_the_common_archive(udd, make, prepared, load, out, kind):
    source = make.archive("UDD.zip", udd) if kind == "archive" else make.tree("download", udd)
    prepared(card_of("rskt_udd5_5"), source)
    expect(load("rskt_udd5_5_all"), UDD5, 5, make, out / "UDD5/all/src")


@pytest.mark.parametrize("kind", ["archives", "folder"])
def test_vdd_is_one_folder_of_all_splits(vdd, make, prepared, load, out, kind):
    if kind == "folder":
        sources = [make.tree("VDD", vdd)]
    else:
        sources = [
            make.archive(f"{split}.zip", {name: vdd[name] for name in vdd if name.startswith(split)})
            for split in ("train", "val", "test")
        ]
    prepared(card_of("rskt_vdd_7"), *sources)
    expect(load("rskt_vdd_7_all"), VDD, 7, make, out / "VDD/src")


def test_endings_in_lower_case_are_read_and_written_as_the_card_says(vdd, make, prepared, load, out):
    lower = {name.replace(".JPG", ".jpg"): content for name, content in vdd.items()}
    prepared(card_of("rskt_vdd_7"), make.tree("VDD", lower))
    expect(load("rskt_vdd_7_all"), VDD, 7, make, out / "VDD/src")


def test_udd6_alone_is_not_taken(files, make, prepared):
    with pytest.raises(DataError, match=r"holds no file like 'UDD5/train/src/DJI_0001\.JPG'"):
        prepared(card_of("rskt_udd5_5"), make.tree("download", files("UDD/UDD6/", UDD5, 6)))


def test_labels_of_udd6_in_the_place_of_udd5_are_refused(udd, make, prepared):
    udd["UDD/UDD5/val/gt/000003.png"] = udd["UDD/UDD6/val/gt/000003.png"]
    with pytest.raises(DataError, match=r"UDD5/val/gt/000003\.png hold values .* 5 \("):
        prepared(card_of("rskt_udd5_5"), make.tree("download", udd))


def test_pictures_in_the_place_of_labels_are_refused(vdd, make, prepared):
    vdd["test/gt/DJI_0003.png"] = make.encoded(make.image(*SHAPE), "PNG")
    with pytest.raises(DataError, match=r"test/gt/DJI_0003\.png have the mode RGB, but one integer per pixel"):
        prepared(card_of("rskt_vdd_7"), make.tree("VDD", vdd))


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("rskt_udd5_5", "UDD/UDD5/train/gt/DJI_0020.png", r"1 images without labels: .*UDD5/train/src/DJI_0020\.JPG"),
        ("rskt_vdd_7", "val/src/DJI_0002.JPG", r"1 labels without image: .*val/gt/DJI_0002\.png"),
    ],
)
def test_file_without_partner_is_named(udd, vdd, make, prepared, name, missing, message):
    files = udd if name == "rskt_udd5_5" else vdd
    del files[missing]
    with pytest.raises(DataError, match=message):
        prepared(card_of(name), make.tree("download", files))


def test_one_name_in_two_splits_is_refused(udd, make, prepared):
    for kind, ending in (("src", "JPG"), ("gt", "png")):
        udd[f"UDD/UDD5/val/{kind}/DJI_0001.{ending}"] = udd[f"UDD/UDD5/train/{kind}/DJI_0001.{ending}"]
    with pytest.raises(DataError, match="several originals would be called DJI_0001"):
        prepared(card_of("rskt_udd5_5"), make.tree("download", udd))
