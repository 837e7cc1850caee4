import pytest
import torch
import torch.nn.functional as F

from ovrs.inference import label_map
from ovrs.inference.labels import enlarge


def explicit(scores: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    full = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    return full.argmax(dim=0), full.amax(dim=0)


@pytest.mark.parametrize("classes_per_pass", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("size", [(13, 10), (37, 61), (5, 4)])
def test_labels_equal_the_argmax_of_all_enlarged_scores(classes_per_pass: int, size: tuple[int, int]):
    scores = torch.rand(11, 13, 10)
    labels, best = label_map(scores, size, classes_per_pass)
    expected, expected_best = explicit(scores, size)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), expected)
    torch.testing.assert_close(best, expected_best)


@pytest.mark.parametrize("classes_per_pass", [1, 2, 3, 8])
def test_of_equal_scores_the_first_class_wins(classes_per_pass: int):
    scores = torch.full((7, 4, 4), 0.5)
    scores[0] = 0.25
    labels, best = label_map(scores, (4, 4), classes_per_pass)
    assert (labels == 1).all()
    assert (best == 0.5).all()


@pytest.mark.parametrize("classes_per_pass", [1, 3, 8, 100])
def test_logits_become_probabilities_after_they_were_enlarged(classes_per_pass: int):
    logits = 5 * torch.randn(11, 6, 5)
    labels, best = label_map(logits, (19, 23), classes_per_pass, softmax=True)
    full = F.interpolate(logits[None], size=(19, 23), mode="bilinear", align_corners=False)[0].softmax(dim=0)
    assert torch.equal(labels.long(), full.argmax(dim=0))
    torch.testing.assert_close(best, full.amax(dim=0))


@pytest.mark.parametrize(("classes", "dtype"), [(255, torch.uint8), (256, torch.int32), (300, torch.int32)])
def test_many_classes_fit_the_type_of_the_labels(classes: int, dtype: torch.dtype):
    scores = torch.zeros(classes, 2, 2)
    scores[-1] = 1.0
    labels, _ = label_map(scores, (4, 4))
    assert labels.dtype == dtype
    assert (labels == classes - 1).all()


def test_scores_of_the_wanted_size_are_returned_as_they_are():
    scores = torch.rand(3, 4, 5)
    assert enlarge(scores, (4, 5)) is scores
    assert enlarge(scores, (8, 10)).shape == (3, 8, 10)
