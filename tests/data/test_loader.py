import logging
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm

from ovrs.config import ConfigError
from ovrs.data import loader
from ovrs.data.loader import TrainingBatches, build_test_loader, build_train_loader
from ovrs.data.order import TrainingOrder
from ovrs.errors import DataError


def take(loader, count):
    """Return the stems and a digest of the pixels of the first batches."""
    return [
        [(Path(sample["file_name"]).stem, int(sample["image"].long().sum()), sample["image"].shape) for sample in batch]
        for batch in islice(loader, count)
    ]


def augmented(cfg):
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.RANDOM_FLIP_VERTICAL = "horizontal", True
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE = True, [10, 10]
    return cfg


@pytest.mark.parametrize("grouping", [False, True])
def test_resumed_loader_continues_where_the_interrupted_one_stopped(cfg, grouping):
    augmented(cfg).DATALOADER.ASPECT_RATIO_GROUPING = grouping
    whole = take(build_train_loader(cfg), 12)
    assert take(build_train_loader(cfg), 12) == whole
    for start in (1, 5, 9):
        assert take(build_train_loader(cfg, start_iteration=start), 12 - start) == whole[start:]


@pytest.mark.parametrize("grouping", [False, True])
def test_workers_do_not_change_what_is_loaded(cfg, grouping):
    augmented(cfg).DATALOADER.ASPECT_RATIO_GROUPING = grouping
    expected = take(build_train_loader(cfg), 9)
    cfg.DATALOADER.NUM_WORKERS = 2
    assert take(build_train_loader(cfg, start_iteration=4), 5) == expected[4:]


def test_every_epoch_shows_every_image_once_in_a_new_order(cfg):
    stems = [stem for batch in take(build_train_loader(cfg), 14) for stem, *_ in batch]
    epochs = [stems[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == 7 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_an_image_is_augmented_differently_every_time(cfg):
    seen = {}
    for batch in take(build_train_loader(augmented(cfg)), 28):
        for stem, digest, _ in batch:
            seen.setdefault(stem, []).append(digest)
    assert all(len(set(digests)) > 4 for digests in seen.values())


@pytest.mark.parametrize("views", [1, 3])
def test_fixed_views_come_again_every_so_many_epochs(cfg, views):
    augmented(cfg).INPUT.FIXED_VIEWS = views
    seen = {}
    for batch in take(build_train_loader(cfg), 28):  # eight epochs
        for stem, digest, _ in batch:
            seen.setdefault(stem, []).append(digest)
    assert all(digests[views:] == digests[:-views] for digests in seen.values())
    assert all(len(set(digests)) <= views for digests in seen.values())
    assert any(len(set(digests)) == views for digests in seen.values())
    cfg.INPUT.FIXED_VIEWS = -1
    with pytest.raises(ConfigError, match=r"INPUT\.FIXED_VIEWS must be 0 .*, got -1"):
        build_train_loader(cfg)


def test_the_seed_decides_the_order(cfg):
    def order(seed, argument=None):
        cfg.SEED = seed
        return take(build_train_loader(cfg, seed=argument), 14)

    assert order(1) != order(2)
    assert order(-1, 2) == order(2) == order(2, 1)


def test_a_missing_seed_is_an_error(cfg):
    cfg.SEED = -1
    with pytest.raises(ConfigError, match="SEED is -1"):
        build_train_loader(cfg)


def test_grouped_batches_have_one_orientation_and_lose_no_image(cfg):
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    batches = take(build_train_loader(cfg), 70)
    assert all(len({shape for *_, shape in batch}) == 1 for batch in batches)
    assert len({shape for batch in batches for *_, shape in batch}) == 2
    counts = Counter(stem for batch in batches for stem, *_ in batch)
    assert set(counts.values()) <= {19, 20, 21}
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    ungrouped = take(build_train_loader(cfg), 70)
    assert any(len({shape for *_, shape in batch}) == 2 for batch in ungrouped)


def test_loaders_leave_the_global_random_state_alone(cfg):
    state = torch.get_rng_state()
    take(build_train_loader(cfg), 2)
    take(build_test_loader(cfg, cfg.DATASETS.TRAIN[0]), 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_several_training_sets_are_mixed(cfg, write_card):
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, str(write_card("second.yaml", name="second")))
    batches = list(islice(build_train_loader(cfg), 7))
    counts = Counter(sample["dataset"] for batch in batches for sample in batch)
    assert counts == {"town_train": 7, "second_train": 7}


def test_weights_decide_how_often_a_set_is_shown(cfg, write_card):
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, str(write_card("second.yaml", name="second")))
    cfg.DATASETS.TRAIN_WEIGHTS = [1, 6]
    batches = list(islice(build_train_loader(cfg), 14))
    for epoch in (batches[:7], batches[7:]):
        assert Counter(sample["dataset"] for batch in epoch for sample in batch) == {
            "town_train": 2,
            "second_train": 12,
        }


@pytest.mark.parametrize("grouping", [False, True])
def test_resumed_loader_with_weights_continues_where_the_interrupted_one_stopped(cfg, write_card, grouping):
    augmented(cfg).DATALOADER.ASPECT_RATIO_GROUPING = grouping
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, str(write_card("second.yaml", name="second")))
    cfg.DATASETS.TRAIN_WEIGHTS = [5, 1]
    whole = take(build_train_loader(cfg), 20)
    for start in (1, 6, 7, 15):
        assert take(build_train_loader(cfg, start_iteration=start), 20 - start) == whole[start:]
    cfg.DATALOADER.NUM_WORKERS = 2
    assert take(build_train_loader(cfg, start_iteration=8), 4) == whole[8:12]


@pytest.mark.parametrize("weights", [[], [3, 1]])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_each_batch_whatever_their_number(world_size, weights):
    order = TrainingOrder([4, 6], 1, weights)
    ranks = [TrainingBatches(order, 6 // world_size, rank=r, world_size=world_size) for r in range(world_size)]
    shares = [list(islice(rank, 10)) for rank in ranks]
    expected = list(islice(TrainingBatches(order, 6), 10))
    for k in range(10):
        assert sorted(place for share in shares for place in share[k]) == sorted(expected[k])


def test_grouping_reads_each_header_once():
    asked = Counter()

    def is_wide(index):
        asked[index] += 1
        return index % 3 == 0

    order = TrainingOrder([9], 0)
    whole = list(islice(TrainingBatches(order, 2, is_wide=is_wide), 20))
    assert all(len({index % 3 == 0 for _, index in batch}) == 1 for batch in whole)
    assert list(islice(TrainingBatches(order, 2, start_iteration=13, is_wide=is_wide), 7)) == whole[13:]
    asked.clear()
    assert len(next(iter(TrainingBatches(order, 1, is_wide=is_wide)))) == 1
    assert not asked


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_test_loader_gives_every_image_once_in_order(cfg, batch_size):
    cfg.TEST.IMS_PER_BATCH = batch_size
    batches = take(build_test_loader(cfg, cfg.DATASETS.TRAIN[0]), 99)
    assert [stem for batch in batches for stem, *_ in batch] == [f"{number:03d}" for number in range(7)]
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_test_loaders_of_all_processes_cover_the_set_once(cfg, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    stems = []
    for rank in range(3):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        stems += [stem for batch in take(build_test_loader(cfg, cfg.DATASETS.TRAIN[0]), 99) for stem, *_ in batch]
    assert stems == [f"{number:03d}" for number in range(7)]


def test_batch_size_must_suit_the_processes(cfg, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    for size in (2, 6):
        cfg.SOLVER.IMS_PER_BATCH = size
        with pytest.raises(ConfigError, match=rf"IMS_PER_BATCH is {size}; it must be a multiple of the 4 processes"):
            build_train_loader(cfg)


def test_no_training_set_is_an_error(cfg):
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(cfg)


def test_training_without_labels_is_an_error(cfg, write_card):
    cfg.DATASETS.TRAIN = (str(write_card(splits={"train": {"images": "images", "labels": None}})),)
    with pytest.raises(DataError, match="town_train has no labels"):
        build_train_loader(cfg)


def test_errors_in_workers_keep_their_message(cfg, town):
    (town.parent / "labels" / "003.png").write_bytes(b"broken")
    cfg.DATALOADER.NUM_WORKERS = 1
    with pytest.raises(DataError, match=r"003\.png is no image file"):
        take(build_train_loader(cfg), 7)


def test_more_workers_than_cores_are_capped_and_said_once(cfg, monkeypatch, caplog):
    monkeypatch.setattr(loader, "usable_cores", lambda: 1)
    loader._say_capped.cache_clear()
    cfg.DATALOADER.NUM_WORKERS = 9
    with caplog.at_level(logging.INFO, "ovrs.data.loader"):
        assert {build_train_loader(cfg).num_workers, build_test_loader(cfg, cfg.DATASETS.TRAIN[0]).num_workers} == {1}
    assert caplog.text.count("NUM_WORKERS is 9, but there are 1 cores") == 1
