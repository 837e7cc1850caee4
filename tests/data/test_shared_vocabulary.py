"""Several data sets in one vocabulary: exact labels, the first string, what a set does not label."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.config import ConfigError
from ovrs.data.card import load_card
from ovrs.data.catalog import resolve_datasets
from ovrs.data.loader import build_test_loader, build_train_loader
from ovrs.data.mapper import SegmentationMapper
from ovrs.data.shared_vocabulary import share_vocabulary
from ovrs.errors import DataError

MERGED = ("building|house", "road", "other", "tree", "House boat")


@pytest.fixture
def village(write_card, town):
    """A second set over the town's files: its ids 0, 1, 2 are tree, ROAD, building; "House boat" is never labelled."""
    return write_card(
        "village.yaml",
        name="village",
        classes=["tree", "ROAD", "Building", "House boat"],
        labels={"ids": {0: "tree", 1: "ROAD", 2: "Building"}},
    )


@pytest.fixture
def merged_cfg(cfg, village):
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, str(village))
    cfg.DATASETS.TRAIN_VOCABULARY = "merged"
    return cfg


def samples(cfg) -> dict[str, dict]:
    """Return a training sample of the same files from each set."""
    names = resolve_datasets(cfg.DATASETS.TRAIN)
    mapper = SegmentationMapper(cfg, True, dataset_names=names)
    return {name: mapper(DatasetCatalog.get(name)[0], np.random.default_rng(0)) for name in names}


def test_labels_become_indices_of_the_merged_classes(merged_cfg):
    merged = samples(merged_cfg)
    merged_cfg.DATASETS.TRAIN_VOCABULARY = "own"
    own = samples(merged_cfg)
    for name, table in (("town_train", [0, 1, 2]), ("village_train", [3, 1, 0])):
        assert merged[name]["vocabulary"] == MERGED
        assert merged[name]["sem_seg"].dtype == torch.int64
        assert own[name]["sem_seg"].unique().tolist() == [0, 1, 2]
        assert torch.equal(merged[name]["sem_seg"], torch.tensor(table)[own[name]["sem_seg"]])
        assert "vocabulary" not in own[name]


def test_order_of_the_sets_decides_the_strings_and_indices(merged_cfg):
    merged_cfg.DATASETS.TRAIN = merged_cfg.DATASETS.TRAIN[::-1]
    found = samples(merged_cfg)["town_train"]
    assert found["vocabulary"] == ("tree", "ROAD", "Building", "House boat", "other")
    assert found["sem_seg"].unique().tolist() == [1, 2, 4]


def test_ignored_pixels_stay_ignored(town, village):
    names = resolve_datasets([str(town), str(village)])
    shared = share_vocabulary({name: MetadataCatalog.get(name).card for name in names})
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    assert shared["village_train"].relabel(labels).tolist() == [[3, 1, 0, 255]]
    assert shared["town_train"].relabel(labels).tolist() == [[0, 1, 2, 255]]


@pytest.mark.parametrize("mode", ["negative", "ignored"])
def test_sample_says_which_classes_its_set_labels_where_the_others_are_ignored(merged_cfg, mode):
    merged_cfg.DATASETS.UNLABELLED_CLASSES = mode
    found = {name: sample.get("labelled_classes") for name, sample in samples(merged_cfg).items()}
    if mode == "negative":
        assert found == {"town_train": None, "village_train": None}
        return
    assert found["town_train"].tolist() == [True, True, True, False, False]
    assert found["village_train"].tolist() == [True, True, False, True, False]


def test_augmentation_is_the_same_in_both_modes(merged_cfg):
    merged_cfg.INPUT.CROP.ENABLED, merged_cfg.INPUT.CROP.SIZE = True, [8, 8]
    merged_cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.4
    merged_cfg.INPUT.RANDOM_FLIP_VERTICAL = True
    images = []
    for mode in ("merged", "own"):
        merged_cfg.DATASETS.TRAIN_VOCABULARY = mode
        images.append([sample["image"] for batch in islice(build_train_loader(merged_cfg), 7) for sample in batch])
    assert len(images[0]) == 14
    assert all(torch.equal(a, b) for a, b in zip(*images, strict=True))


def test_merged_samples_come_through_workers(merged_cfg):
    merged_cfg.DATASETS.UNLABELLED_CLASSES = "ignored"
    expected = [sample for batch in islice(build_train_loader(merged_cfg), 3) for sample in batch]
    merged_cfg.DATALOADER.NUM_WORKERS = 1
    found = [sample for batch in islice(build_train_loader(merged_cfg), 3) for sample in batch]
    for a, b in zip(expected, found, strict=True):
        assert (a["vocabulary"], a["file_name"]) == (b["vocabulary"], b["file_name"])
        assert torch.equal(a["sem_seg"], b["sem_seg"])
        assert torch.equal(a["labelled_classes"], b["labelled_classes"])


def test_test_sets_keep_their_own_vocabulary(merged_cfg, village):
    batches = list(build_test_loader(merged_cfg, str(village)))
    assert all("vocabulary" not in sample for batch in batches for sample in batch)
    assert {value for batch in batches for sample in batch for value in sample["sem_seg"].unique().tolist()} == {
        0,
        1,
        2,
    }


def test_contradicting_classes_name_the_key_and_the_set(merged_cfg, write_card):
    card = write_card("other.yaml", name="fork", classes=["building", "house", "road"])
    merged_cfg.DATASETS.TRAIN = (merged_cfg.DATASETS.TRAIN[0], str(card))
    with pytest.raises(DataError, match=r"TRAIN_VOCABULARY is 'merged', but fork_train lists 'building' and 'house'"):
        build_train_loader(merged_cfg)


def test_more_classes_than_labels_can_hold_are_refused(write_card):
    cards = {
        name: load_card(write_card(f"{name}.yaml", name=name, classes=[f"{name}{i}" for i in range(count)]))
        for name, count in (("a", 200), ("b", 55))
    }
    with pytest.raises(DataError, match="merged vocabulary of a, b has 255 classes, and at most 254 fit"):
        share_vocabulary(cards)


@pytest.mark.parametrize(
    ("key", "message"),
    [("TRAIN_VOCABULARY", "must be 'own' or 'merged', got 'both'"), ("UNLABELLED_CLASSES", "'negative' or 'ignored'")],
)
def test_unknown_mode_names_the_key(cfg, key, message):
    cfg.DATASETS[key] = "both"
    with pytest.raises(ConfigError, match=rf"DATASETS\.{key} .*{message}"):
        build_train_loader(cfg)
