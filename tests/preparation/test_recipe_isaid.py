"""iSAID: colours of classes, never of instances; overlapping windows; windows without objects left out."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

# Colours of the development kit, in the order of the classes; the last is background.
COLOURS = [
    *[(0, 0, 63), (0, 63, 63), (0, 63, 0), (0, 63, 127), (0, 63, 191), (0, 63, 255), (0, 127, 63), (0, 127, 127)],
    *[(0, 0, 127), (0, 0, 191), (0, 0, 255), (0, 191, 127), (0, 127, 191), (0, 127, 255), (0, 100, 155), (0, 0, 0)],
]
BACKGROUND = 15
SHAPES = {("train", "P0002"): (300, 470), ("val", "P0003"): (256, 256), ("val", "P0007"): (200, 260)}


@pytest.fixture
def images(make):
    """Return {(split, stem): (image, classes)}; the right end of P0002 and all but a spot of P0003 are background."""
    drawn = {}
    for seed, (key, shape) in enumerate(SHAPES.items()):
        drawn[key] = make.image(*shape, seed), make.classes(*shape, 16, seed)
    drawn["train", "P0002"][1][:, 206:] = BACKGROUND
    drawn["val", "P0003"][1][:] = BACKGROUND
    drawn["val", "P0003"][1][100:110, 50:60] = 13
    return drawn


@pytest.fixture
def download(make, images):
    """The images of DOTA in an archive per split, the masks in folders as iSAID distributes them."""
    for split in ("train", "val"):
        files = {
            f"images/{stem}.png": make.encoded(image, "PNG")
            for (name, stem), (image, _) in images.items()
            if name == split
        }
        make.archive(f"DOTA/{split}/part1.zip", files)
    for (split, stem), (_, classes) in images.items():
        masks = {
            f"{stem}_instance_color_RGB.png": make.encoded(make.painted(classes, COLOURS), "PNG"),
            f"{stem}_instance_id_RGB.png": make.encoded(make.image(*classes.shape), "PNG"),
        }
        make.tree(f"iSAID/{split}/Semantic_masks/images", masks)
    return make.folder


def truth(classes):
    return np.where(classes == BACKGROUND, IGNORE_LABEL, classes)


def test_windows_overlap_end_at_the_border_and_hold_objects(download, images, prepared, load):
    prepared(card_of("rskt_isaid_15"), download)
    train = load("rskt_isaid_15_train")
    # starts are multiples of 206 and the last window ends at the border; on the right there is nothing labelled
    assert sorted(train) == ["P0002_0_256_0_256", "P0002_44_300_0_256"]
    image, classes = images["train", "P0002"]
    np.testing.assert_array_equal(train["P0002_44_300_0_256"][0], image[44:300, :256])
    np.testing.assert_array_equal(train["P0002_44_300_0_256"][1], truth(classes[44:300, :256]))


def test_window_with_a_spot_is_kept(download, images, prepared, load):
    prepared(card_of("rskt_isaid_15"), download)
    labels = load("rskt_isaid_15_val")["P0003_0_256_0_256"][1]
    np.testing.assert_array_equal(labels, truth(images["val", "P0003"][1]))
    assert (labels == 13).sum() == 100


def test_image_smaller_than_a_window_is_filled_up_with_ignored_pixels(download, images, prepared, load):
    prepared(card_of("rskt_isaid_15"), download)
    image, labels = load("rskt_isaid_15_val")["P0007_0_256_4_260"]
    np.testing.assert_array_equal(image[:200], images["val", "P0007"][0][:, 4:])
    np.testing.assert_array_equal(labels[:200], truth(images["val", "P0007"][1][:, 4:]))
    assert not image[200:].any()
    assert (labels[200:] == IGNORE_LABEL).all()


def test_all_is_the_union_without_a_second_copy(download, prepared, load, out):
    prepared(card_of("rskt_isaid_15"), download)
    assert set(load("rskt_isaid_15_all")) == set(load("rskt_isaid_15_train")) | set(load("rskt_isaid_15_val"))
    for folder in ("imgs", "D2masks"):
        for split in ("train", "val"):
            for path in (out / "iSAID_split" / split / folder).iterdir():
                assert path.samefile(out / "iSAID" / folder / path.name)


def test_grey_image_and_image_with_alpha_become_rgb(download, make, images, prepared, load):
    rgb, _ = images["val", "P0003"]
    (download / "DOTA/val/part1.zip").unlink()
    grey = make.encoded(rgb[..., 0], "PNG")
    alpha = make.encoded(np.dstack([images["val", "P0007"][0], make.image(200, 260)[..., 0]]), "PNG")
    make.tree("DOTA/val/images", {"P0003.png": grey, "P0007.png": alpha})
    prepared(card_of("rskt_isaid_15"), download)
    pairs = load("rskt_isaid_15_val")
    np.testing.assert_array_equal(pairs["P0003_0_256_0_256"][0], rgb[..., [0, 0, 0]])
    np.testing.assert_array_equal(pairs["P0007_0_256_0_256"][0][:200], images["val", "P0007"][0][:, :256])


def test_instance_ids_alone_are_not_taken(download, prepared):
    for path in download.rglob("*_instance_color_RGB.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"holds no file like 'train/Semantic_masks/images/P0000_instance_color_RGB"):
        prepared(card_of("rskt_isaid_15"), download)


def test_image_without_mask_is_named(download, prepared):
    next(download.rglob("P0007_instance_color_RGB.png")).unlink()
    with pytest.raises(DataError, match=r"1 images without labels: .*part1\.zip: images/P0007\.png"):
        prepared(card_of("rskt_isaid_15"), download)
