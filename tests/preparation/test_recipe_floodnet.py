"""FloodNet: validation and test together, labels and not the pictures of labels, background ignored."""

import numpy as np
import pytest
from miniatures import card_of
from PIL import Image

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

SHAPE = (60, 80)
IMAGES = {"train": 7301, "val": 6279, "test": 10807}
ROOT = "FloodNet-Supervised_v1.0"


@pytest.fixture
def drawn(make):
    """Return {number: (bytes of the image, ids 0..9)}."""
    return {
        number: (make.encoded(make.image(*SHAPE, seed), "JPEG"), make.classes(*SHAPE, 10, seed, block=10))
        for seed, number in enumerate(IMAGES.values())
    }


@pytest.fixture
def files(make, drawn):
    """The files of the download by their names in it, with the pictures of the labels under the labels' names."""
    found = {}
    for split, number in IMAGES.items():
        image, ids = drawn[number]
        found[f"{ROOT}/{split}/{split}-org-img/{number}.jpg"] = image
        found[f"{ROOT}/{split}/{split}-label-img/{number}_lab.png"] = make.encoded(ids, "PNG")
        picture = make.encoded(make.image(40, 40), "PNG")
        found[f"ColorMasks-FloodNetv1.0/ColorMasks-{split.title()}Set/{number}_lab.png"] = picture
    return found


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_validation_and_test_are_one_set_with_background_ignored(files, drawn, make, prepared, load, out, kind):
    source = make.archive("FloodNet.zip", files) if kind == "archive" else make.tree("download", files)
    prepared(card_of("gsnet_floodnet_10"), source)
    pairs = load("gsnet_floodnet_10_val_test")
    assert sorted(pairs) == ["10807", "6279"]
    for number in (10807, 6279):
        image, ids = drawn[number]
        assert (out / f"FloodNet/val+test/img/{number}.jpg").read_bytes() == image
        # 'Background' is the query of index 0, but its pixels do not count: the others stay where they are
        np.testing.assert_array_equal(pairs[str(number)][1], np.where(ids == 0, IGNORE_LABEL, ids))


def test_stored_ids_are_those_of_the_authors(files, drawn, make, prepared, out):
    prepared(card_of("gsnet_floodnet_10"), make.tree("download", files))
    with Image.open(out / "FloodNet/val+test/lbl/6279.png") as stored:
        np.testing.assert_array_equal(np.asarray(stored), drawn[6279][1])


def test_pictures_of_labels_are_not_taken(files, make, prepared):
    kept = {name: content for name, content in files.items() if "-label-img/" not in name}
    with pytest.raises(DataError, match=r"holds no file like 'val/val-label-img/6279_lab\.png'"):
        prepared(card_of("gsnet_floodnet_10"), make.tree("download", kept))


def test_pictures_in_the_place_of_labels_are_refused(files, make, prepared):
    files[f"{ROOT}/val/val-label-img/6279_lab.png"] = make.encoded(make.image(*SHAPE), "PNG")
    with pytest.raises(DataError, match=r"6279_lab\.png have the mode RGB, but one integer per pixel"):
        prepared(card_of("gsnet_floodnet_10"), make.tree("download", files))


def test_value_above_those_of_the_classes_is_refused(files, drawn, make, prepared):
    ids = drawn[10807][1].copy()
    ids[30, 7] = 10
    files[f"{ROOT}/test/test-label-img/10807_lab.png"] = make.encoded(ids, "PNG")
    with pytest.raises(DataError, match=r"10807_lab\.png hold .* 10 \(1 pixels, the first at row 30, column 7\)"):
        prepared(card_of("gsnet_floodnet_10"), make.tree("download", files))


def test_image_without_labels_is_named(files, make, prepared):
    del files[f"{ROOT}/test/test-label-img/10807_lab.png"]
    with pytest.raises(DataError, match=r"1 images without labels: .*test-org-img/10807\.jpg"):
        prepared(card_of("gsnet_floodnet_10"), make.tree("download", files))


def test_labels_of_another_size_are_refused(files, make, prepared):
    files[f"{ROOT}/val/val-label-img/6279_lab.png"] = make.encoded(np.zeros((40, 40), np.uint8), "PNG")
    with pytest.raises(DataError, match=r"6279\.jpg is 80 x 60 .*6279_lab\.png are 40 x 40"):
        prepared(card_of("gsnet_floodnet_10"), make.tree("download", files))
