from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ovrs.config import ConfigError
from ovrs.data.order import ORDER_STREAM, TrainingOrder, numbered_generator


def shown(order: TrainingOrder, epochs: int) -> list[np.ndarray]:
    return [order.epoch(number) for number in range(epochs)]


@pytest.mark.parametrize("weights", [(), (6, 4), (0.3, 0.2)], ids=["none", "sizes", "shares like the sizes"])
def test_without_weights_or_with_those_of_the_sizes_an_epoch_is_a_permutation(weights):
    """The same one as ever: runs that are on their way must go on."""
    order = TrainingOrder([6, 4], 3, weights)
    assert len(order) == 10
    for number, indices in enumerate(shown(order, 3)):
        expected = numbered_generator(3, ORDER_STREAM, number).permutation(10)
        np.testing.assert_array_equal(indices, expected)


def test_weights_share_every_epoch_and_mix_the_sets():
    order = TrainingOrder([30, 10], 0, [1, 3])
    assert order.places == (10, 30)
    for indices in shown(order, 5):
        assert len(indices) == 40
        assert np.count_nonzero(indices < 30) == 10
        assert np.count_nonzero(np.diff(indices < 30)) > 8  # changes from one set to the other


def test_no_image_comes_again_before_all_of_its_set_were_shown():
    order = TrainingOrder([7, 3, 10], 1, [2, 1, 1])
    sets = (range(7), range(7, 10), range(10, 20))
    seen = Counter()
    for indices in shown(order, 21):
        seen.update(indices.tolist())
        counts = [[seen[index] for index in members] for members in sets]
        assert all(max(of_set) - min(of_set) <= 1 for of_set in counts)
    assert [sum(of_set) for of_set in counts] == [210, 105, 105]


def test_every_pass_through_a_set_has_an_order_of_its_own():
    epochs = shown(TrainingOrder([9, 3], 0, [1, 3]), 12)  # three epochs are a pass through the first set
    together = [frozenset(indices[indices < 9].tolist()) for indices in epochs]
    assert all(len(members) == 3 for members in together)
    assert len({frozenset(together[start : start + 3]) for start in range(0, 12, 3)}) == 4


def test_an_epoch_depends_on_seed_and_number_alone():
    whole = shown(TrainingOrder([5, 8], 2, [1, 1]), 6)
    np.testing.assert_array_equal(TrainingOrder([5, 8], 2, [1, 1]).epoch(4), whole[4])
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(TrainingOrder([5, 8], 3, [1, 1]).epoch(0), whole[0])


def test_shares_are_rounded_to_whole_images_by_largest_remainder():
    assert TrainingOrder([5, 3, 2], 0, [1, 1, 1]).places == (4, 3, 3)
    assert TrainingOrder([5, 3, 2], 0, [0.56, 0.27, 0.17]).places == (5, 3, 2)
    assert TrainingOrder([50, 50], 0, [0.1 + 0.2, 0.7]).places == (30, 70)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], r"DATASETS\.TRAIN_WEIGHTS has 1 values for 2 data sets of DATASETS\.TRAIN"),
        ([1, 0], r"must hold numbers above 0, got 0 in \[1, 0\]"),
        ([1, -2.5], r"must hold numbers above 0, got -2\.5"),
        ([1, "2"], r"must hold numbers above 0, got '2'"),
        ([True, 1], r"must hold numbers above 0, got True"),
        ([1, float("nan")], r"must hold numbers above 0, got nan"),
        ([1000, 1], r"leaves data set 2 of DATASETS\.TRAIN without an image in an epoch of 10"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        TrainingOrder([5, 5], 0, weights)
