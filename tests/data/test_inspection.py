from __future__ import annotations

import logging

import numpy as np
import pytest
from image_pairs import save_pair
from PIL import Image

from ovrs.data.catalog import resolve_datasets
from ovrs.data.inspection import count_classes, evenly_spread
from ovrs.data.loader import build_train_loader
from ovrs.errors import DataError

SPLITS = {"all": {"images": "images", "labels": "labels"}}
# Four label maps of the classes building, road, other; 255 is ignored.
MAPS = [[[0, 0, 0, 255]], [[0, 1, 1, 1]], [[255, 255, 255, 255]], [[1, 1, 0, 0], [0, 0, 0, 0]]]


@pytest.fixture
def small(write_card):
    """The registered name of four pairs that show MAPS."""
    card = write_card("small.yaml", name="small", labels={"ignore": [255]}, splits=SPLITS)
    for number, labels in enumerate(MAPS):
        save_pair(card.parent, f"{number}", np.array(labels, np.uint8))
    return resolve_datasets([str(card)])[0]


def test_pixels_and_images_are_counted_per_class(small):
    counts = count_classes(small)
    assert counts.pixels.tolist() == [10, 5, 0]
    assert counts.images.tolist() == [3, 2, 0]
    assert (counts.ignored, counts.files, counts.of_files) == (5, 4, 4)
    np.testing.assert_allclose(counts.shares, [10 / 15, 5 / 15, 0])
    assert counts.ignored_share == 0.25


def test_sample_reads_some_files_evenly_spread(small):
    counts = count_classes(small, sample=2)
    assert counts.pixels.tolist() == [9, 2, 0]  # of the first and the last
    assert (counts.files, counts.of_files) == (2, 4)
    assert count_classes(small, sample=99).files == 4


def test_class_without_pixels_is_warned_of_by_name(small, caplog):
    with caplog.at_level(logging.WARNING, "ovrs.data.inspection"):
        count_classes(small)
        count_classes(small, sample=1)
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("small_all: no pixel of other in 4 of 4 label files.")
    assert "small.yaml" in first
    assert second.startswith("small_all: no pixel of road, other in 1 of 4 label files.")


def test_text_query_without_label_values_is_no_reason_to_warn(write_card, small, caplog):
    card = write_card("query.yaml", name="query", labels={"ids": {0: "building", 1: "road"}, "ignore": [255]})
    (name,) = resolve_datasets([str(card)])
    with caplog.at_level(logging.WARNING, "ovrs.data.inspection"):
        assert count_classes(name).pixels.tolist() == [10, 5, 0]
    assert not caplog.records


def test_all_ignored_labels_have_shares_of_zero(write_card):
    card = write_card()
    save_pair(card.parent, "a", np.full((2, 2), 255, np.uint8))
    counts = count_classes(resolve_datasets([str(card)])[0])
    assert counts.shares.tolist() == [0, 0, 0]
    assert counts.ignored_share == 1


def test_bad_label_file_is_named(small, write_card, tmp_path):
    save_pair(tmp_path / "my data", "2", np.full((2, 2), 9, np.uint8))
    with pytest.raises(DataError, match=r"2\.png hold values .* 9 \(4 pixels\)"):
        count_classes(small)


def test_data_set_without_labels_cannot_be_counted(write_card, town):
    card = write_card("bare.yaml", name="bare", splits={"t": {"images": "images", "labels": None}})
    with pytest.raises(DataError, match="bare_t has no labels to count; name a split with labels"):
        count_classes(resolve_datasets([str(card)])[0])


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10))), (12, list(range(10)))]
)
def test_spread_covers_the_whole_without_repeating(count, expected):
    assert evenly_spread(range(10), count) == expected


def test_unusable_pairs_are_all_named(small, tmp_path):
    folder = tmp_path / "my data"
    Image.new("RGB", (9, 9)).save(folder / "images/1.png")
    content = (folder / "images/3.png").read_bytes()
    (folder / "images/3.png").write_bytes(content[: len(content) - 30])
    with pytest.raises(DataError, match=r"(?s)2 of 4 pairs of small_all .*1\.png is 9 x 9.*3\.png cannot be read"):
        count_classes(small)


def test_set_without_a_labelled_pixel_is_refused(write_card, cfg):
    splits = {"all": {"images": "e", "labels": "e/l"}}
    card = write_card("empty.yaml", name="empty", labels={"ignore": [255]}, splits=splits)
    (card.parent / "e/l").mkdir(parents=True)
    for number in range(4):
        save_pair(card.parent, f"e{number}", np.full((2, 2), 255, np.uint8))
        (card.parent / f"images/e{number}.png").rename(card.parent / f"e/{number}.png")
        (card.parent / f"labels/e{number}.png").rename(card.parent / f"e/l/{number}.png")
    (name,) = resolve_datasets([str(card)])
    with pytest.raises(DataError, match="empty_all has no labelled pixel: all are ignored in the 4 label files"):
        count_classes(name).require_labelled()
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, name)
    with pytest.raises(DataError, match=r"empty_all has no labelled pixel: .* 4 label files, .*0\.png.*empty\.yaml"):
        build_train_loader(cfg)


def test_one_labelled_pixel_in_the_last_file_is_enough(write_card, cfg):
    card = write_card(labels={"ignore": [255]})
    for number in range(40):
        labels = np.full((2, 2), 255, np.uint8)
        labels[0, 0] = 0 if number == 21 else 255
        save_pair(card.parent, f"{number:02d}", labels)
    cfg.DATASETS.TRAIN = (str(card),)
    next(iter(build_train_loader(cfg)))
