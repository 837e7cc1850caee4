"""Vaihingen: false colours kept, complete labels told from images by their folder, labels without image."""

import logging

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.preparation import check
from ovrs.structures import IGNORE_LABEL

# The colours of the benchmark: impervious, building, low vegetation, tree, car, clutter, boundary.
COLOURS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)]
BOUNDARY = 6
SHAPES = {"area1": (520, 300), "area38": (256, 513)}  # no multiples of the 256 that windows have
IMAGES = "ISPRS_semantic_labeling_Vaihingen"


@pytest.fixture
def areas(make):
    """Return {area: (image, classes 0..5)}."""
    return {
        area: (make.image(*shape, seed), make.classes(*shape, 6, seed))
        for seed, (area, shape) in enumerate(SHAPES.items())
    }


@pytest.fixture
def images(make, areas):
    """The archive of the images, which has labels of some areas, and those spoilt: nobody should look at them."""
    files = {f"top/top_mosaic_09cm_{area}.tif": make.encoded(image, "TIFF") for area, (image, _) in areas.items()}
    files["dsm/dsm_09cm_matching_area1.tif"] = b""
    files["gts_for_participants/top_mosaic_09cm_area1.tif"] = b"spoilt"
    return make.archive(f"{IMAGES}.zip", files)


@pytest.fixture
def labels(make, areas):
    """Return a function that makes the archive of one set of labels, with those of area 9, which has no image."""

    def build(kind="", painted=None):
        painted = painted or {area: make.painted(classes, COLOURS) for area, (_, classes) in areas.items()}
        painted["area9"] = painted["area1"]
        suffix = "_noBoundary" if kind else ""
        files = {f"top_mosaic_09cm_{area}{suffix}.tif": make.encoded(mask, "TIFF") for area, mask in painted.items()}
        return make.archive(f"{IMAGES}_ground_truth_{kind}COMPLETE.zip", files)

    return build


def test_full_windows_hold_the_pixels_of_the_area(images, labels, areas, prepared, load):
    prepared(card_of("rskt_vaihingen_6"), images, labels())
    pairs = load("rskt_vaihingen_6_all")
    windows = {"area1": [(0, 0), (256, 0)], "area38": [(0, 0), (0, 256)]}  # what is left at the borders is dropped
    assert len(pairs) == 4
    for area, (image, classes) in areas.items():
        for top, left in windows[area]:
            found, truth = pairs[f"vaihingen_{area}_{top}_{top + 256}_{left}_{left + 256}"]
            window = slice(top, top + 256), slice(left, left + 256)
            np.testing.assert_array_equal(found, image[window])  # infrared, red, green: in this order, as it was
            np.testing.assert_array_equal(truth, classes[window])  # clutter, 5, is a class


def test_everything_unpacked_into_one_folder_is_told_apart(make, areas, prepared, load):
    for area, (image, classes) in areas.items():
        name = f"top_mosaic_09cm_{area}.tif"
        make.tree(f"{IMAGES}/top", {name: make.encoded(image, "TIFF")})
        make.tree(f"{IMAGES}/gts_for_participants", {name: b"spoilt"})
        make.tree("gts", {name: make.encoded(make.painted(classes, COLOURS), "TIFF")})
    prepared(card_of("rskt_vaihingen_6"), make.folder)
    _, truth = load("rskt_vaihingen_6_all")["vaihingen_area1_0_256_0_256"]
    np.testing.assert_array_equal(truth, areas["area1"][1][:256, :256])


def test_labels_of_an_area_without_image_are_left_out_and_named(images, labels, prepared, load, caplog):
    caplog.set_level(logging.INFO)
    prepared(card_of("rskt_vaihingen_6"), images, labels())
    assert "labels without image are left out: area9" in caplog.text
    assert not [stem for stem in load("rskt_vaihingen_6_all") if "area9" in stem]


def test_missing_image_of_a_listed_area_is_refused(labels, make, areas, prepared):
    image = make.encoded(areas["area1"][0], "TIFF")
    only = make.tree("part/top", {"top_mosaic_09cm_area1.tif": image})
    with pytest.raises(DataError, match=r"1 labels without image: .*top_mosaic_09cm_area38\.tif"):
        prepared(card_of("rskt_vaihingen_6"), only, labels())


def test_missing_labels_are_refused(images, make, areas, prepared):
    mask = make.encoded(make.painted(areas["area1"][1], COLOURS), "TIFF")
    only = make.tree("gts", {"top_mosaic_09cm_area1.tif": mask})
    with pytest.raises(DataError, match=r"1 images without labels: .*top/top_mosaic_09cm_area38\.tif"):
        prepared(card_of("rskt_vaihingen_6"), images, only)


def test_labels_among_the_images_are_not_enough(images, prepared):
    with pytest.raises(DataError, match=r"no file like 'ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/"):
        prepared(card_of("rskt_vaihingen_6"), images)


def test_borders_of_objects_are_ignored(images, labels, areas, make, prepared, load, caplog):
    classes = {area: truth.copy() for area, (_, truth) in areas.items()}
    for truth in classes.values():
        truth[::40] = BOUNDARY
    eroded = labels("eroded_", {area: make.painted(truth, COLOURS) for area, truth in classes.items()})
    prepared(card_of("rskt_vaihingen_6"), images, eroded)
    _, truth = load("rskt_vaihingen_6_all")["vaihingen_area38_0_256_256_512"]
    expected = classes["area38"][:, 256:512]
    np.testing.assert_array_equal(truth, np.where(expected == BOUNDARY, IGNORE_LABEL, expected))
    assert "so these are taken" in caplog.text


def test_complete_labels_are_preferred(images, labels, areas, make, prepared, load, caplog):
    black = {area: make.painted(np.full_like(truth, BOUNDARY), COLOURS) for area, (_, truth) in areas.items()}
    prepared(card_of("rskt_vaihingen_6"), images, labels(), labels("eroded_", black))
    assert (load("rskt_vaihingen_6_all")["vaihingen_area1_0_256_0_256"][1] != IGNORE_LABEL).all()
    assert "so these are taken" not in caplog.text


def test_label_set_that_nobody_knows_is_refused(images, labels, prepared):
    with pytest.raises(DataError, match=r"source\.label_set is 'eroded'; it must be one of label, label_noBoundary"):
        prepared(card_of("rskt_vaihingen_6", label_set="eroded"), images, labels())


def test_colour_of_no_class_is_refused(images, labels, areas, make, prepared):
    painted = {area: make.painted(truth, COLOURS) for area, (_, truth) in areas.items()}
    painted["area38"][3, 4] = (252, 255, 0)
    with pytest.raises(DataError, match=r"area38\.tif hold .*252,255,0 \(1 pixels, the first at row 3, column 4\)"):
        prepared(card_of("rskt_vaihingen_6"), images, labels(painted=painted))


def test_area_of_no_split_is_refused(images, labels, prepared):
    with pytest.raises(DataError, match=r"area38\.tif: area38 is in no list of source\.split_ids"):
        prepared(card_of("rskt_vaihingen_6", split_ids={"all": ["area1"]}), images, labels())


def test_missing_areas_are_counted(images, labels, prepared, out):
    summary = prepared(card_of("rskt_vaihingen_6"), images, labels())
    assert summary.surprises == ("rskt_vaihingen_6_all: 2 original images, but 33 were expected",)
    (report,) = check(card_of("rskt_vaihingen_6"), out, workers=1).splits
    assert report.problems == []
    assert "2 original images, but 33 were expected; is the download complete?" in report.doubts
