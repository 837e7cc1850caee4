"""The score of guessing, against arithmetic by hand and against guessing itself."""

import numpy as np
import pytest
import torch

from ovrs.evaluation import ConfusionMatrix
from ovrs.evaluation.chance import chance_miou


def labels_of(*counts: int) -> np.ndarray:
    """Return uint8 labels with as many pixels of class 0, 1, ... as ``counts`` says."""
    return np.repeat(np.arange(len(counts), dtype=np.uint8), counts)


def scored(labels: np.ndarray, guesses: np.ndarray, num_classes: int) -> float:
    matrix = ConfusionMatrix(num_classes)
    matrix.update(torch.from_numpy(labels), torch.from_numpy(guesses))
    return matrix.metrics().miou


@pytest.mark.parametrize(
    ("counts", "num_classes", "expected"),
    [
        # evenly drawn: hits 1/4, union 1/2 + 1/2 - 1/4, for both classes; the commonest alone: 1/2 and 0
        ((5, 5), 2, 1 / 3),
        # evenly drawn: (0.375 / 0.875 + 0.125 / 0.625) / 2 = 0.314; the commonest alone: 0.75 and 0
        ((3, 1), 2, 0.75 / 2),
        # guesses of the two classes that never occur are wrong, but these do not enter the mean:
        # evenly drawn: 0.125 / 0.625 for both; the commonest alone: 1/2 and 0
        ((5, 5), 4, 0.5 / 2),
        ((7,), 3, 1.0),
    ],
)
def test_chance_is_the_better_guess_by_hand(counts, num_classes, expected):
    assert chance_miou([labels_of(*counts)], num_classes) == pytest.approx(100 * expected)


@pytest.mark.parametrize(("counts", "num_classes"), [((100_000, 100_000), 2), ((70_000, 60_000, 50_000, 40_000), 4)])
def test_even_guessing_reaches_its_expectation(counts, num_classes):
    labels = labels_of(*counts)
    guesses = np.random.default_rng(0).integers(num_classes, size=labels.shape)
    expected = chance_miou([labels], num_classes)
    assert scored(labels, guesses, num_classes) == pytest.approx(expected, abs=0.3)
    assert expected > max(scored(labels, np.full(labels.shape, c), num_classes) for c in range(num_classes)) + 1


def test_guessing_the_commonest_class_reaches_exactly_its_score():
    labels = labels_of(10, 80, 10)
    assert chance_miou([labels], 3) == pytest.approx(scored(labels, np.full(labels.shape, 1), 3))


def test_images_count_together_and_ignored_pixels_not_at_all():
    first = np.array([[0, 0, 255], [255, 1, 255]], np.uint8)
    second = np.array([[0, 255]], np.uint8)
    assert chance_miou([first, second], 2) == chance_miou([labels_of(3, 1)], 2)


@pytest.mark.parametrize("maps", [[], [np.full((2, 2), 255, np.uint8)]], ids=["no image", "all ignored"])
def test_nothing_labelled_is_refused(maps):
    with pytest.raises(ValueError, match="no labelled pixel"):
        chance_miou(maps, 3)
