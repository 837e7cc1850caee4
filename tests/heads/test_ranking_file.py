"""The criteria of the channel ranking, the order that follows, and its file."""

from __future__ import annotations

import itertools
import math
import zipfile

import numpy as np
import pytest

from ovrs.heads.dr_seg.ranking_file import (
    ChannelRanking,
    RankingError,
    channel_count,
    dead_channels,
    inter_class_similarity,
    order,
    ordinal_rank,
    score,
    selectivity_entropy,
)

COUNTS = (5, 1, 8, 3)
CHANNELS = 6


@pytest.fixture
def prototypes():
    """Features of four classes, unequally many."""
    rng = np.random.default_rng(0)
    return [rng.normal(0.1, 0.3, (count, CHANNELS)) for count in COUNTS]


def means(prototypes):
    mean = np.stack([group.mean(axis=0) for group in prototypes])
    relu_mean = np.stack([np.maximum(group, 0).mean(axis=0) for group in prototypes])
    return mean, relu_mean, np.array([len(group) for group in prototypes])


def ranking_of(prototypes, **options):
    mean, relu_mean, counts = means(prototypes)
    return ChannelRanking.from_class_means(mean, relu_mean, counts, np.ones(mean.shape[1]), **options)


def assert_same(first, second):
    for name, value in vars(first).items():
        if name == "meta":
            assert value == second.meta
        else:
            np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)


# ---------------------------------------------------------------------- entropy


def test_entropy_is_that_counted_by_hand():
    activations = np.array([[0.5, 0.8, 0.6], [0.5, 0.0, 0.2]])
    uneven = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    np.testing.assert_allclose(selectivity_entropy(activations), [1, 0, uneven], atol=1e-6)


def test_entropy_reaches_from_nothing_to_the_logarithm_of_the_classes():
    activations = np.stack([np.full(7, 0.2), np.eye(7)[3]], axis=1)
    np.testing.assert_allclose(selectivity_entropy(activations), [math.log2(7), 0], atol=1e-6)


def test_dead_channel_is_the_least_selective_not_the_most():
    activations = np.array([[0.3, 1e-9, 0.9], [0.2, 0.0, 0.1], [0.1, 1e-8, 0.0]])
    entropy = selectivity_entropy(activations)
    assert dead_channels(activations).tolist() == [False, True, False]
    assert entropy.argmax() == 1
    assert entropy[1] == math.log2(3)


# ---------------------------------------------------------------------- similarity


def pairs_of_classes(prototypes):
    """The mean product over all pairs of prototypes of each ordered pair of different classes, and their number."""
    for first, second in itertools.permutations(prototypes, 2):
        products = first[:, None] * second[None]
        yield products.mean(axis=(0, 1)), products.shape[0] * products.shape[1]


def test_similarity_over_pairs_of_prototypes_is_that_of_every_pair(prototypes):
    values, weights = zip(*pairs_of_classes(prototypes), strict=True)
    mean, _, counts = means(prototypes)
    expected = np.average(values, axis=0, weights=weights)
    np.testing.assert_allclose(inter_class_similarity(mean, counts, "pairs"), expected, rtol=0, atol=1e-16)


def test_balanced_similarity_is_that_of_every_pair_of_classes(prototypes):
    values, _ = zip(*pairs_of_classes(prototypes), strict=True)
    mean, _, counts = means(prototypes)
    expected = np.mean(values, axis=0)
    np.testing.assert_allclose(inter_class_similarity(mean, counts), expected, rtol=0, atol=1e-16)


def test_weightings_agree_where_classes_are_equally_large_and_differ_elsewhere(prototypes):
    mean, _, counts = means(prototypes)
    equal = np.full_like(counts, 7)
    balanced = inter_class_similarity(mean, counts)
    np.testing.assert_allclose(inter_class_similarity(mean, equal, "pairs"), balanced, rtol=1e-12)
    assert not np.allclose(inter_class_similarity(mean, counts, "pairs"), balanced, rtol=1e-3)


def test_one_class_has_no_pairs(prototypes):
    with pytest.raises(RankingError, match="at least two classes, got 1"):
        ranking_of(prototypes[:1])


def test_unknown_weighting_is_refused(prototypes):
    with pytest.raises(RankingError, match=r"S_WEIGHTING\) must be one of balanced, pairs, got 'even'"):
        ranking_of(prototypes, weighting="even")


# ---------------------------------------------------------------------- ranks and order


def test_rank_runs_from_zero_to_one_and_ties_keep_their_order():
    np.testing.assert_array_equal(ordinal_rank(np.array([0.5, -1.0, 0.5, 2.0, -1.0])), [0.5, 0, 0.75, 1, 0.25])


def test_score_weighs_both_ranks():
    np.testing.assert_allclose(score(np.array([0.0, 1.0]), np.array([0.25, 0.5]), 0.3), [0.3 + 0.7 * 0.75, 0.7 * 0.5])


def test_order_descends_and_ties_keep_their_order():
    noise = 1e-14
    assert order(np.array([0.2, 0.9, 0.2 + noise, 0.5, 0.9 + noise])).tolist() == [1, 4, 3, 0, 2]


@pytest.mark.parametrize(("lam", "criterion"), [(0, "inter_sim"), (1, "entropy")])
def test_lambda_at_its_ends_leaves_one_criterion(prototypes, lam, criterion):
    ranking = ranking_of(prototypes, lam=lam)
    np.testing.assert_array_equal(ranking.order, np.argsort(getattr(ranking, criterion)))


def test_lambda_out_of_range_is_refused(prototypes):
    for act in (lambda: ranking_of(prototypes, lam=1.5), lambda: ranking_of(prototypes).reranked(-0.1)):
        with pytest.raises(RankingError, match=r"LAMBDA\) must be in 0\.\.1"):
            act()


def test_class_without_prototypes_takes_no_part(prototypes):
    mean, relu_mean, counts = means(prototypes)
    mean, relu_mean = (np.insert(array, 2, 0, axis=0) for array in (mean, relu_mean))
    ranking = ChannelRanking.from_class_means(mean, relu_mean, np.insert(counts, 2, 0), np.ones(CHANNELS))
    without = ranking_of(prototypes)
    for name in ("entropy", "inter_sim", "score", "order"):
        np.testing.assert_array_equal(getattr(ranking, name), getattr(without, name), err_msg=name)
    assert len(ranking.counts) == len(COUNTS) + 1


def test_features_that_are_not_finite_are_refused(prototypes):
    prototypes[0][0, 0] = np.nan
    with pytest.raises(RankingError, match=r"not all finite.*MODEL\.VLM\.WEIGHTS"):
        ranking_of(prototypes)


def test_reranking_equals_ranking_with_that_lambda(prototypes):
    ranking, other = (ranking_of(prototypes, lam=lam, meta={"dataset": "town"}) for lam in (0.3, 0.8))
    assert ranking.order.tolist() != other.order.tolist()
    assert_same(ranking.reranked(0.8), other)
    assert_same(ranking.reranked(0.8).reranked(0.3), ranking)


# ---------------------------------------------------------------------- split


@pytest.mark.parametrize(
    ("channels", "counts"), [(512, (153, 204, 256, 307, 358)), (768, (230, 307, 384, 460, 537)), (10, (3, 4, 5, 6, 7))]
)
def test_share_of_channels_is_rounded_down(channels, counts):
    assert tuple(channel_count(share, channels) for share in (0.3, 0.4, 0.5, 0.6, 0.7)) == counts


def test_split_cuts_the_order_in_two(prototypes):
    ranking = ranking_of(prototypes)
    semantic, structural = ranking.split(0.4)
    assert (len(semantic), len(structural)) == (2, 4)
    assert [*semantic, *structural] == ranking.order.tolist()
    assert ranking.score[semantic].min() >= ranking.score[structural].max()


def test_split_may_leave_one_side_empty(prototypes):
    assert [[len(part) for part in ranking_of(prototypes).split(rho)] for rho in (0, 1)] == [[0, 6], [6, 0]]


@pytest.mark.parametrize("rho", [-0.1, 1.1])
def test_share_out_of_range_is_refused(prototypes, rho):
    with pytest.raises(RankingError, match=rf"RHO\) must be in 0\.\.1, got {rho}"):
        ranking_of(prototypes).split(rho)


# ---------------------------------------------------------------------- the file


@pytest.fixture
def ranking(prototypes):
    return ranking_of(prototypes, meta={"classes": ["a", "b", "Straße", "d"], "vlm": "ViT-B-16"})


def test_file_gives_back_what_was_saved(ranking, tmp_path):
    path = ranking.save(tmp_path / "a folder" / "town.npz")
    assert_same(ChannelRanking.load(path, CHANNELS), ranking)
    assert list(path.parent.iterdir()) == [path]


def test_same_ranking_gives_the_same_bytes(ranking, tmp_path):
    first, second = ranking.save(tmp_path / "first.npz"), ranking.save(tmp_path / "second.npz")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:  # no time of writing
        assert {entry.date_time[:3] for entry in archive.infolist()} == {(1980, 1, 1)}


def test_file_gets_the_name_that_is_asked_for(ranking, tmp_path):
    assert_same(ChannelRanking.load(ranking.save(tmp_path / "town.ranking")), ranking)


def test_failed_save_keeps_the_old_file(ranking, tmp_path, monkeypatch):
    path = ranking.save(tmp_path / "town.npz")
    before = path.read_bytes()

    def run_full(stream, **arrays):
        stream.write(b"PK")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", run_full)
    with pytest.raises(OSError, match="disk full"):
        ranking.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_names_file_key_and_tool(tmp_path):
    with pytest.raises(RankingError, match=r"absent\.npz does not exist \(MODEL\.DR_SEG\.SPSD\.FILE\).*rank_channels"):
        ChannelRanking.load(tmp_path / "absent.npz")


def _cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def _bare(path):
    with open(path, "wb") as stream:
        np.save(stream, np.ones(3))


def _pickled(path):
    with np.load(path) as archive:
        arrays = {**archive, "order": np.array([{}], dtype=object)}
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "spoil",
    [_cut, _flip, _bare, _pickled, lambda path: path.write_bytes(b""), lambda path: path.write_text("order: [1]")],
    ids=["truncated", "flipped byte", "bare array", "pickled object", "empty", "text"],
)
def test_file_that_is_no_ranking_is_named(ranking, tmp_path, spoil):
    path = ranking.save(tmp_path / "town.npz")
    spoil(path)
    with pytest.raises(RankingError, match=r"town\.npz cannot be read as a channel ranking .*Make a new file"):
        ChannelRanking.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": None, "counts": None}, "lacks score, counts"),
        ({"meta": None}, "no readable provenance"),
        ({"meta": np.array("[1, 2]")}, "no readable provenance"),
        ({"meta": np.array("{")}, "no readable provenance"),
        ({"meta": np.array('{"classes": ["a", "b", "c", "d"]}')}, "no readable provenance"),
        ({"meta": np.array('{"lambda": 0.3, "classes": ["a"]}')}, "names 1 classes and counts 4"),
        ({"score": np.zeros(5)}, r"score is float64 \[5\], expected float64 \[6\] \(C = 6 channels, K = 4 classes\)"),
        ({"mean": np.zeros((6, 4))}, r"mean is float64 \[6, 4\], expected float64 \[4, 6\]"),
        ({"entropy": np.zeros(6, np.float32)}, r"entropy is float32 \[6\]"),
        ({"order": np.arange(6).reshape(2, 3)}, r"order is int64 \[2, 3\], expected int64 \[6\]"),
        ({"order": np.array([0, 1, 2, 3, 4, 4])}, r"order does not hold each of the channels 0\.\.5 once"),
        ({"order": np.arange(1, 7)}, "order does not hold"),
    ],
)
def test_content_that_does_not_fit_is_refused(ranking, tmp_path, changes, message):
    path = ranking.save(tmp_path / "town.npz")
    with np.load(path) as archive:
        arrays = {**archive, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(RankingError, match=rf"town\.npz.*{message}"):
        ChannelRanking.load(path)


def test_ranking_of_another_width_is_refused(ranking, tmp_path):
    path = ranking.save(tmp_path / "town.npz")
    with pytest.raises(RankingError, match=r"town\.npz is of 6 channels \(ViT-B-16\), but .*MODEL\.VLM has 768"):
        ChannelRanking.load(path, channels=768)
