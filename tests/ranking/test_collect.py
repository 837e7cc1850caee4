"""Grid labels, streaming sums, reservoirs, and one run over a data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from ranking.colour_model import COLOURS

from ovrs.config import ConfigError
from ovrs.data import resolve_datasets
from ovrs.data.augmentation import resize_image, resized_shape
from ovrs.heads.dr_seg.ranking_file import RankingError
from ovrs.ranking import RankingOptions, collect, grid_labels
from ovrs.ranking.collect import ClassReservoirs, ClassSums, centre_labels

# ---------------------------------------------------------------------- labels of the grid


def one_cell(shares: dict[int, int]) -> np.ndarray:
    """A 16 x 16 cell with so many pixels of each label."""
    assert sum(shares.values()) == 256
    return np.repeat(np.array(list(shares), np.uint8), list(shares.values())).reshape(16, 16)


@pytest.mark.parametrize(
    ("shares", "purity", "label"),
    [
        ({3: 256}, 0.5, 3),
        ({0: 128, 1: 100, 2: 28}, 0.5, 0),
        ({0: 100, 1: 127, 2: 29}, 0.5, 255),
        ({0: 100, 1: 127, 2: 29}, 0.4, 1),
        ({255: 128, 4: 128}, 0.5, 4),  # the share is of the whole cell ...
        ({255: 129, 4: 127}, 0.5, 255),  # ... so one that is mostly ignored is dropped
        ({5: 255, 6: 1}, 1.0, 255),
        ({255: 256}, 0.0, 255),
        ({255: 255, 7: 1}, 0.0, 7),
        ({2: 128, 1: 128}, 0.5, 1),
    ],
)
def test_cell_has_the_label_of_the_class_that_covers_enough(shares, purity, label):
    assert grid_labels(one_cell(shares), (1, 1), purity).tolist() == [[label]]


def test_cells_lie_where_their_pixels_do():
    expected = np.random.default_rng(0).integers(0, 6, (3, 5)).astype(np.uint8)
    labels = expected.repeat(16, axis=0).repeat(16, axis=1)
    assert np.array_equal(grid_labels(labels, (3, 5)), expected)
    assert np.array_equal(centre_labels(labels, (3, 5)), expected)


def test_labels_of_any_size_are_read_at_sixteen_pixels_a_cell():
    expected = np.random.default_rng(0).integers(0, 6, (24, 24)).astype(np.uint8)
    for side in (8, 24, 40):  # smaller, larger and no multiple
        labels = expected.repeat(side, axis=0).repeat(side // 2, axis=1)
        assert np.array_equal(grid_labels(labels, (24, 24), purity=0.9), expected)


def test_centre_is_asked_alone():
    cell = one_cell({0: 256})
    cell[8, 8] = 9
    assert centre_labels(cell, (1, 1)).tolist() == [[9]]
    assert grid_labels(cell, (1, 1)).tolist() == [[0]]


# ---------------------------------------------------------------------- sums and reservoirs


@pytest.fixture
def batches():
    """Unit features with labels, of classes 0, 1 and 3 of four, in pieces."""
    rng = np.random.default_rng(0)
    pieces = []
    for count in (40, 1, 0, 25):
        features = rng.normal(0.1, 1, (count, 6))
        pieces.append((features / np.linalg.norm(features, axis=1, keepdims=True), rng.choice([0, 1, 3], count)))
    return pieces


def filled(store, batches):
    for features, labels in batches:
        store.add(features, labels)
    return store


def test_streaming_sums_are_those_of_all_at_once(batches):
    sums = filled(ClassSums(4, 6), batches)
    features, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    mean, relu_mean = sums.means()
    assert sums.counts.tolist() == np.bincount(labels, minlength=4).tolist()
    for k in (0, 1, 3):
        np.testing.assert_allclose(mean[k], features[labels == k].mean(axis=0), rtol=0, atol=1e-15)
        np.testing.assert_allclose(relu_mean[k], np.maximum(features[labels == k], 0).mean(axis=0), rtol=0, atol=1e-15)
    assert not mean[2].any()


def test_reservoir_with_room_for_all_keeps_all(batches):
    sums = filled(ClassSums(4, 6), batches)
    for size in (max(sums.counts), 100):
        kept = filled(ClassReservoirs(4, 6, size, seed=0), batches).sums()
        assert kept.counts.tolist() == sums.counts.tolist()
        np.testing.assert_allclose(kept.means(), sums.means(), rtol=0, atol=1e-15)


def test_reservoir_keeps_at_most_its_size_of_each_class(batches):
    reservoirs = filled(ClassReservoirs(4, 6, 10, seed=0), batches)
    assert reservoirs.sums().counts.tolist() == np.minimum(reservoirs.seen, 10).tolist() == [10, 10, 0, 10]


def test_reservoir_does_not_depend_on_pieces_and_other_classes(batches):
    features, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    once = filled(ClassReservoirs(4, 6, 5, seed=3), [(features, labels)]).sums().means()
    np.testing.assert_array_equal(filled(ClassReservoirs(4, 6, 5, seed=3), batches).sums().means(), once)
    alone = labels == 1
    (mean, _) = filled(ClassReservoirs(4, 6, 5, seed=3), [(features[alone], labels[alone])]).sums().means()
    np.testing.assert_array_equal(mean[1], once[0][1])


def test_reservoir_keeps_every_feature_equally_often():
    features = np.eye(20)
    labels = np.zeros(20, int)
    kept = [filled(ClassReservoirs(1, 20, 5, seed), [(features, labels)]).sums().means()[0][0] for seed in range(400)]
    shares = np.mean(kept, axis=0) * 5  # how often each was among the five; 1/4 with a standard deviation of 0.022
    assert np.abs(shares - 0.25).max() < 0.09
    assert np.isclose(shares.sum(), 5)


# ---------------------------------------------------------------------- a run over a data set


@pytest.fixture
def records_of():
    def find(dataset: str):
        (name,) = resolve_datasets([dataset])
        return DatasetCatalog.get(name), MetadataCatalog.get(name).card

    return find


def test_a_run_finds_the_means_of_all_cells(tower, town, maps, records_of):
    found = collect(tower, *records_of(town))
    features, labels = [], []
    for array in maps:
        colours = np.array([*COLOURS.values(), (0, 0, 0)], np.uint8)
        image = colours[np.where(array == 255, 3, array)]
        image = resize_image(image, *resized_shape(*array.shape, 384, 0))
        dense = tower.dense(torch.from_numpy(image.transpose(2, 0, 1).copy()))
        features.append(dense.flatten(1).T.double().numpy())
        labels.append(grid_labels(array.astype(np.uint8), (8, 8)).ravel())
    features, labels = np.concatenate(features), np.concatenate(labels)
    np.testing.assert_allclose(found.channel_rms, np.sqrt((features**2).mean(axis=0)), rtol=1e-12)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert 0 < (labels == 255).sum() < len(labels)
    for k in range(3):
        own = units[labels == k]
        assert found.counts[k] == found.cells[k] == len(own) > 0
        np.testing.assert_allclose(found.mean[k], own.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.relu_mean[k], np.maximum(own, 0).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("n_p", [0, 5])
def test_two_runs_agree_bit_for_bit(tower, town, records_of, n_p):
    first, second = (collect(tower, *records_of(town), RankingOptions(n_p=n_p)) for _ in range(2))
    for name, array in vars(first).items():
        assert array.tobytes() == getattr(second, name).tobytes(), name


def test_literal_mode_draws_as_many_prototypes_as_asked_for(tower, town, records_of):
    everything, drawn, plenty = (collect(tower, *records_of(town), RankingOptions(n_p=n_p)) for n_p in (0, 5, 10_000))
    assert drawn.counts.tolist() == [5, 5, 5]
    assert drawn.cells.tolist() == everything.counts.tolist() == plenty.counts.tolist()
    np.testing.assert_allclose(plenty.mean, everything.mean, rtol=0, atol=1e-15)
    assert not np.allclose(drawn.mean, everything.mean, rtol=0, atol=1e-6)
    other = collect(tower, *records_of(town), RankingOptions(n_p=5, seed=1))
    assert not np.array_equal(other.mean, drawn.mean)


def test_centre_labelling_uses_cells_that_no_class_covers(tower, write_town, records_of):
    stripes = np.tile(np.array([0, 1, 2, 255], np.uint8), (64, 16))
    dataset = write_town(stripes)
    assert collect(tower, *records_of(dataset)).counts.sum() == 0
    assert collect(tower, *records_of(dataset), RankingOptions(labelling="centre")).counts.tolist() == [64, 0, 0]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"lam": 2}, RankingError, "LAMBDA"),
        ({"weighting": "even"}, RankingError, "S_WEIGHTING"),
        ({"n_p": -1}, ConfigError, "N_P"),
        ({"purity": 1.5}, ConfigError, "PURITY"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"labelling": "any"}, ConfigError, "majority, centre, got 'any'"),
    ],
)
def test_option_out_of_range_is_refused_before_the_run(values, error, message):
    with pytest.raises(error, match=message):
        RankingOptions(**values)


def test_options_are_those_of_the_configuration(cfg):
    assert RankingOptions.from_config(cfg) == RankingOptions()
    node = cfg.MODEL.DR_SEG.SPSD
    node.LAMBDA, node.N_P, node.PURITY, node.S_WEIGHTING = 0.6, 9, 0.7, "pairs"
    assert RankingOptions.from_config(cfg) == RankingOptions(lam=0.6, n_p=9, purity=0.7, weighting="pairs")
