"""SAMRS-FAST: the listed images alone, ids and not their pictures, 0 as a class and 255 as background."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

SHAPE = (60, 60)
# FAIR1M counts its training and its validation images from 0 both; SAMRS tells them by a prefix.
STEMS = ["train_10_0_0", "valid_10_0_0", "train_7_600_0"]
LISTED = ["train_7_600_0", "valid_10_0_0"]


@pytest.fixture
def drawn(make):
    """Return {stem: (bytes of the image, ids 0..36 and 255)}."""
    found = {}
    for seed, stem in enumerate(STEMS):
        ids = make.classes(*SHAPE, 38, seed, block=6)
        found[stem] = make.encoded(make.image(*SHAPE, seed), "PNG"), np.where(ids == 37, np.uint8(255), ids)
    return found


@pytest.fixture
def files(make, drawn):
    """The files of FAST beside those of another part of SAMRS, which has lists of the same names."""
    found = {
        "SAMRS/FAST/train.txt": b"train_10_0_0\n",
        "SAMRS/FAST/valid.txt": "\n".join(LISTED).encode(),
        "SAMRS/SIOR/valid.txt": b"00001\n",
    }
    for stem, (image, ids) in drawn.items():
        found[f"SAMRS/FAST/images/{stem}.png"] = image
        found[f"SAMRS/FAST/semlabels/gray/{stem}.png"] = make.encoded(ids, "PNG")
        found[f"SAMRS/FAST/semlabels/color/{stem}.png"] = make.encoded(make.image(*SHAPE, 9), "PNG")
    return found


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_listed_images_are_taken_with_0_as_a_class(files, drawn, make, prepared, load, out, kind):
    source = make.archive("SAMRS.zip", files) if kind == "archive" else make.tree("download", files)
    prepared(card_of("gsnet_fast_37"), source)
    pairs = load("gsnet_fast_37_val")
    assert sorted(pairs) == LISTED
    for stem in LISTED:
        image, ids = drawn[stem]
        assert (out / f"SAMRS/FAST/val/images/{stem}.png").read_bytes() == image
        assert set(np.unique(ids)) == {*range(37), IGNORE_LABEL}
        np.testing.assert_array_equal(pairs[stem][1], ids)


def test_pictures_of_labels_are_not_taken(files, make, prepared):
    kept = {name: content for name, content in files.items() if "/gray/" not in name}
    with pytest.raises(DataError, match=r"holds no file like 'FAST/gray/train_10_0_0\.png'"):
        prepared(card_of("gsnet_fast_37"), make.tree("download", kept))


def test_pictures_in_the_place_of_labels_are_refused(files, make, prepared):
    files["SAMRS/FAST/semlabels/gray/train_7_600_0.png"] = files["SAMRS/FAST/semlabels/color/train_7_600_0.png"]
    with pytest.raises(DataError, match=r"gray/train_7_600_0\.png have the mode RGB, but one integer per pixel"):
        prepared(card_of("gsnet_fast_37"), make.tree("download", files))


def test_id_of_no_class_is_refused(files, drawn, make, prepared):
    ids = drawn["valid_10_0_0"][1].copy()
    ids[3, 59] = 37
    files["SAMRS/FAST/semlabels/gray/valid_10_0_0.png"] = make.encoded(ids, "PNG")
    with pytest.raises(DataError, match=r"gray/valid_10_0_0\.png hold .* 37 \(1 pixels, the first at row 3, column 59"):
        prepared(card_of("gsnet_fast_37"), make.tree("download", files))


def test_missing_list_is_asked_for(files, make, prepared):
    del files["SAMRS/FAST/valid.txt"]
    with pytest.raises(DataError, match=r"holds no file like 'valid\.txt'"):
        prepared(card_of("gsnet_fast_37"), make.tree("download", files))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("images", r"1 images that the lists of gsnet_fast_37 name are not in .*: train_7_600_0\. Add them"),
        ("semlabels/gray", r"1 images without labels: .*images/train_7_600_0\.png"),
    ],
)
def test_listed_file_that_is_missing_is_named(files, make, prepared, missing, message):
    del files[f"SAMRS/FAST/{missing}/train_7_600_0.png"]
    with pytest.raises(DataError, match=message):
        prepared(card_of("gsnet_fast_37"), make.tree("download", files))
