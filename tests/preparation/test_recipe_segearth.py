"""The protocol of SegEarth-OV: windows, splits and background as it has them, from the authors' archives."""

from __future__ import annotations

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import built_in_cards, load_card
from ovrs.data.reading import read_labels
from ovrs.preparation.tiling import Tiling
from ovrs.structures import IGNORE_LABEL


def test_uavid_is_cut_wide_and_its_cars_are_one(make, prepared, load):
    colours = [
        (0, 0, 0),
        (128, 0, 0),
        (128, 64, 128),
        (192, 0, 192),
        (0, 128, 0),
        (128, 128, 0),
        (64, 64, 0),
        (64, 0, 128),
    ]
    image, classes = make.image(24, 45), make.classes(24, 45, 8, block=3)
    folder = "uavid_test_gt/test_gt/seq21"
    files = {
        f"{folder}/Images/000000.png": make.encoded(image, "PNG"),
        f"{folder}/Labels/000000.png": make.encoded(make.painted(classes, colours), "PNG"),
        "uavid_train/seq1/Images/000000.png": make.encoded(image, "PNG"),
    }
    small = {"size": [12, 16], "stride": [12, 16], "edge": "shift"}
    prepared(card_of("segearth_uavid_7", tiling=small), make.tree("uavid", files))
    pairs = load("segearth_uavid_7_test")
    corners = [(top, left) for top in (0, 12) for left in (0, 16, 29)]
    assert sorted(pairs) == sorted(f"seq21_000000_{t}_{t + 12}_{x}_{x + 16}" for t, x in corners)
    for top, left in corners:
        found, labels = pairs[f"seq21_000000_{top}_{top + 12}_{left}_{left + 16}"]
        np.testing.assert_array_equal(found, image[top : top + 12, left : left + 16])
        expected = np.where(classes == 7, 3, classes)[top : top + 12, left : left + 16]
        np.testing.assert_array_equal(labels, expected)


def test_full_size_frames_give_the_published_windows():
    card = card_of("segearth_uavid_7")
    windows = Tiling.of_card(card).windows(2160, 3840)
    assert [(w.top, w.left) for w in windows] == [(t, x) for t in (0, 1080) for x in (0, 1280, 2560)]
    assert [w.left for w in Tiling.of_card(card).windows(2160, 4096)][:4] == [0, 1280, 2560, 2816]
    assert len(Tiling.of_card(card_of("segearth_potsdam_6")).windows(6000, 6000)) * 14 == 2016
    assert len(Tiling.of_card(card_of("segearth_inria_2")).windows(5000, 5000)) * 27 == 675


def test_openearthmap_stays_whole_and_unknown_is_background(make, prepared, load):
    image, ids = make.image(30, 40), make.classes(30, 40, 9, block=5)
    files = {"train.txt": b"aachen_1.tif\n", "val.txt": b"koeln_50.tif\n", "test.txt": b"tokyo_1.tif\n"}
    for stem in ("aachen_1", "koeln_50"):
        region = stem.partition("_")[0]
        files[f"{region}/images/{stem}.tif"] = make.encoded(image, "TIFF")
        files[f"{region}/labels/{stem}.tif"] = make.encoded(ids, "TIFF")
    prepared(card_of("segearth_openearthmap_9"), make.tree("OpenEarthMap_wo_xBD", files))
    pairs = load("segearth_openearthmap_9_val")
    assert list(pairs) == ["koeln_50"]
    np.testing.assert_array_equal(pairs["koeln_50"][0], image)
    np.testing.assert_array_equal(pairs["koeln_50"][1], ids)


def test_inria_takes_the_listed_tiles(make, prepared, load):
    files = {}
    for tile in ("austin1", "austin2", "tyrol-w3"):
        files[f"AerialImageDataset/train/images/{tile}.tif"] = make.encoded(make.image(20, 20), "TIFF")
        mask = make.classes(20, 20, 2, block=4) * np.uint8(255)
        files[f"AerialImageDataset/train/gt/{tile}.tif"] = make.encoded(mask, "TIFF")
    prepared(card_of("segearth_inria_2", tiling={"size": 10, "stride": 10, "edge": "exact"}), make.tree("inria", files))
    pairs = load("segearth_inria_2_test")
    assert {stem.partition("_")[0] for stem in pairs} == {"austin1", "tyrol-w3"}
    assert len(pairs) == 8
    labels = make.classes(20, 20, 2, block=4)[:10, 10:]
    np.testing.assert_array_equal(pairs["austin1_0_10_10_20"][1], labels)


@pytest.mark.parametrize("lowest", [128, 1])
def test_black_and_white_masks_are_read_by_their_threshold(make, tmp_path, lowest):
    card = tmp_path / "roads.yaml"
    card.write_text(
        "name: roads\nclasses: [background, road]\n"
        f"labels: {{ids: {{0: background, 255: road}}, threshold: {lowest}}}\nsplits: {{}}\n"
    )
    values = np.array([[0, 1, 127, 128, 255]], np.uint8)
    path = tmp_path / "mask.png"
    path.write_bytes(make.encoded(values, "PNG"))
    np.testing.assert_array_equal(read_labels(path, load_card(card)), values >= lowest)


def test_a_threshold_goes_with_0_and_255(tmp_path):
    card = tmp_path / "roads.yaml"
    card.write_text(
        "name: roads\nclasses: [background, road]\nsplits: {}\nlabels: {ids: {0: background, 1: road}, threshold: 9}\n"
    )
    with pytest.raises(ValueError, match=r"0 or 255 after it"):
        load_card(card)


def test_every_card_scores_its_background():
    cards = [card for card in built_in_cards() if card.name.startswith("segearth_")]
    assert len(cards) == 17
    for card in cards:
        assert IGNORE_LABEL not in card.labelled_classes
        assert card.labelled_classes == tuple(range(len(card.classes)))
