"""Label-set similarity: the Hausdorff comparison of two lists of embeddings."""

from __future__ import annotations

import pytest
import torch

from ovrs.vocabulary.similarity import label_set_similarity


def test_equal_lists_are_fully_similar_in_any_order_and_length():
    words = torch.randn(5, 8)
    found = label_set_similarity(words, 3 * words.flip(0))
    assert found.similarity == pytest.approx(1.0)
    assert found.distance == pytest.approx(0.0, abs=1e-6)
    assert found.nearest == (4, 3, 2, 1, 0)


def test_distance_is_the_hausdorff_distance_of_unit_embeddings():
    first, second = torch.randn(6, 4), torch.randn(9, 4)
    between = torch.cdist(*(torch.nn.functional.normalize(each.double(), dim=-1) for each in (first, second)))
    expected = max(between.amin(dim=0).max(), between.amin(dim=1).max()).item()
    found = label_set_similarity(first, second)
    assert found.distance == pytest.approx(expected)
    assert found.similarity == pytest.approx(1 - expected**2 / 2)


def test_one_strange_class_in_either_list_decides():
    axes = torch.eye(4)
    found = label_set_similarity(axes[:2], axes[:3])
    assert found.similarity == 0
    assert found.first == (1, 1)
    assert found.second == (1, 1, 0)
