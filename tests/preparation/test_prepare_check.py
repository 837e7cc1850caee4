"""--check: what is certainly wrong with a prepared set, and what is unusual."""

import numpy as np
import pytest
from miniatures import card_of
from PIL import Image

from ovrs.preparation import check

CARD = card_of("hg_loveda_6", counts={"train": 8, "val": 8})
LABELS = "LoveDA_512/ann_dir/train/0_0_512_0_512.png"
IMAGE = "LoveDA_512/img_dir/val/3_0_512_0_512.png"


@pytest.fixture
def done(rural, prepared, out):
    """A prepared set."""
    prepared(CARD, rural)
    return out


def problems(out, card=CARD):
    return "\n".join(check(card, out, workers=1).problems)


def relabelled(path, function):
    labels = np.array(Image.open(path))
    Image.fromarray(function(labels)).save(path)


def test_set_as_it_was_written_has_no_problems(done):
    report = check(CARD, done, workers=1)
    assert report.problems == []
    assert [(split.name, split.pairs, split.doubts) for split in report.splits] == [
        ("hg_loveda_6_train", 8, []),
        ("hg_loveda_6_val", 8, []),
    ]
    assert "no-data" in report.wrong_conversion


def test_pixels_are_those_of_the_labels(done):
    (train, _) = check(CARD, done, workers=1).splits
    labels = np.stack([np.asarray(Image.open(path)) for path in (done / LABELS).parent.iterdir()])
    expected = dict(zip(["(ignored)", *CARD.display_names], np.bincount(labels.ravel()).tolist(), strict=True))
    assert train.pixels == expected
    assert sum(train.shares().values()) == pytest.approx(1)
    assert "(ignored)" not in train.shares()


@pytest.mark.parametrize("prepared_here", [True, False])
def test_number_of_originals_is_doubted_where_it_is_known(done, prepared_here):
    if not prepared_here:
        (done / "LoveDA_512/manifest-hg_loveda_6.json").unlink()
    (train, val) = check(card_of("hg_loveda_6", counts={"train_originals": 5}), done, workers=1).splits
    doubts = [doubt for doubt in train.doubts if "original images" in doubt]
    expected = ["2 original images, but 5 were expected; is the download complete?"]
    assert doubts == (expected if prepared_here else [])
    assert not [doubt for doubt in val.doubts if "original images" in doubt]


def test_exchanged_classes_are_found(done):
    exchange = np.array([0, 2, 1, 3, 4, 5, 6], np.uint8)
    relabelled(done / LABELS, lambda labels: exchange[labels])
    assert "hg_loveda_6_train: " in problems(done)
    assert f"{LABELS} is not as it was written" in problems(done)


def test_changed_image_is_found(done):
    Image.fromarray(np.zeros((512, 512, 3), np.uint8)).save(done / IMAGE)
    assert f"{IMAGE} is not as it was written" in problems(done)


def test_missing_file_is_found(done):
    (done / IMAGE).unlink()
    assert f"1 file(s) are missing: {IMAGE}" in problems(done)
    assert "1 label(s) without image" in problems(done)


def test_missing_pair_is_found(done):
    (done / IMAGE).unlink()
    (done / IMAGE.replace("img_dir", "ann_dir")).unlink()
    assert "2 file(s) are missing" in problems(done)
    (_, val) = check(CARD, done, workers=1).splits
    assert "7 pairs, but 8 were expected; is the download complete?" in val.doubts


def test_extra_pair_is_found(done):
    for path in (done / IMAGE, done / IMAGE.replace("img_dir", "ann_dir")):
        path.with_name("extra.png").write_bytes(path.read_bytes())
    assert "2 file(s) were not written by the preparation" in problems(done)
    assert "extra.png" in problems(done)


def test_value_outside_of_the_card_is_found(done):
    relabelled(done / LABELS, lambda labels: np.where(labels == 1, np.uint8(9), labels))
    assert f"{LABELS} hold values that" in problems(done)


def test_sizes_that_disagree_are_found(done):
    relabelled(done / LABELS, lambda labels: labels[:500])
    assert "differ in size ((512, 512) and (500, 512), rows and columns)" in problems(done)


def test_set_that_is_not_there_is_said_so(out):
    assert "there is no folder" in problems(out)


def test_set_without_manifest_is_checked_without_checksums(done):
    (done / "LoveDA_512/manifest-hg_loveda_6.json").unlink()
    report = check(CARD, done, workers=1)
    assert report.problems == []
    assert "no manifest tells of it" in report.splits[0].doubts[0]


def test_class_without_pixels_and_class_of_all_pixels_are_doubted(make, prepared, out):
    image = make.encoded(make.image(1024, 1024), "PNG")
    ids = np.full((1024, 1024), 4, np.uint8)
    ids[:2, :2] = 7
    files = {"images_png/0.png": image, "masks_png/0.png": make.encoded(ids, "PNG")}
    make.tree("LoveDA/Train/Urban", files)
    prepared(CARD, make.folder)
    (train, _) = check(CARD, out, workers=1).splits
    assert "no pixel of building, road, barren, forest" in train.doubts
    assert "100.0% of the labelled pixels are water" in train.doubts


def test_share_far_from_the_one_that_a_card_states_is_doubted(done):
    (train, _) = check(CARD, done, workers=1).splits
    shares = train.shares()
    near = {"water": shares["water"] * 1.9, "road": shares["road"] / 1.9}
    far = {"water": shares["water"] * 2.1, "road": shares["road"] / 2.1}
    for expected, doubted in ((near, []), (far, ["water", "road"])):
        (train, _) = check(card_of("hg_loveda_6", counts={}, expected_share=expected), done, workers=1).splits
        assert [doubt.split(" are ")[1].split(",")[0] for doubt in train.doubts] == doubted


def test_set_without_a_labelled_pixel_is_wrong(done):
    for path in (done / LABELS).parent.iterdir():
        relabelled(path, np.zeros_like)
    assert "hg_loveda_6_train: no labelled pixel" in problems(done)
    assert "hg_loveda_6_val: no labelled pixel" not in problems(done)
