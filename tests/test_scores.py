import pytest
import torch
import torch.nn.functional as F

from ovrs.scores import ScoreRule, enlarge

SIGMOID, SOFTMAX = ScoreRule("sigmoid"), ScoreRule("softmax")


def explicit(scores: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    full = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    return full.argmax(dim=0), full.amax(dim=0)


@pytest.mark.parametrize("classes_per_pass", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("size", [(13, 10), (37, 61), (5, 4)])
def test_labels_equal_the_argmax_of_all_enlarged_scores(classes_per_pass: int, size: tuple[int, int]):
    scores = torch.rand(11, 13, 10)
    labels, best = SIGMOID.label_map(scores, size, classes_per_pass=classes_per_pass)
    expected, expected_best = explicit(scores, size)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), expected)
    torch.testing.assert_close(best, expected_best)


@pytest.mark.parametrize("classes_per_pass", [1, 2, 3, 8])
def test_of_equal_scores_the_first_class_wins(classes_per_pass: int):
    scores = torch.full((7, 4, 4), 0.5)
    scores[0] = 0.25
    labels, best = SIGMOID.label_map(scores, (4, 4), classes_per_pass=classes_per_pass)
    assert (labels == 1).all()
    assert (best == 0.5).all()


@pytest.mark.parametrize("classes_per_pass", [1, 3, 8, 100])
def test_logits_become_probabilities_after_they_were_enlarged(classes_per_pass: int):
    logits = 5 * torch.randn(11, 6, 5)
    labels, best = SOFTMAX.label_map(logits, (19, 23), classes_per_pass=classes_per_pass)
    full = F.interpolate(logits[None], size=(19, 23), mode="bilinear", align_corners=False)[0].softmax(dim=0)
    assert torch.equal(labels.long(), full.argmax(dim=0))
    torch.testing.assert_close(best, full.amax(dim=0))


@pytest.mark.parametrize(("classes", "dtype"), [(254, torch.uint8), (256, torch.int32), (300, torch.int32)])
def test_many_classes_fit_the_type_of_the_labels(classes: int, dtype: torch.dtype):
    scores = torch.zeros(classes, 2, 2)
    scores[-1] = 1.0
    labels, _ = SIGMOID.label_map(scores, (4, 4))
    assert labels.dtype == dtype
    assert (labels == classes - 1).all()


def test_scores_of_the_wanted_size_are_returned_as_they_are():
    scores = torch.rand(3, 4, 5)
    assert enlarge(scores, (4, 5)) is scores
    assert enlarge(scores, (8, 10)).shape == (3, 8, 10)


# ---------------------------------------------------------------------- what windows average


def test_sigmoid_averages_probabilities_and_softmax_averages_logits():
    logits = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(SIGMOID.scores(logits), logits.sigmoid())
    assert torch.equal(SOFTMAX.scores(logits), logits)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_scale_multiplies_logits_before_the_activation(activation: str):
    logits = torch.randn(1, 3, 4, 4)
    scaled = ScoreRule(activation, scale=40.0)
    torch.testing.assert_close(scaled.scores(logits), ScoreRule(activation).scores(40 * logits))


def test_scores_are_fp32_whatever_the_head_computes_in():
    assert SOFTMAX.scores(torch.randn(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.float32


# ---------------------------------------------------------------------- words


WORDS = torch.tensor([0, 0, 1, 2, 2, 2])
BEST_WORD = ScoreRule("softmax", synonyms="max")


def test_class_has_the_probability_of_its_best_word():
    scores = 3 * torch.randn(6, 5, 7)
    words = scores.softmax(dim=0)
    expected = torch.stack([words[:2].amax(0), words[2], words[3:].amax(0)])
    torch.testing.assert_close(BEST_WORD.probabilities(scores, WORDS), expected)
    labels, best = BEST_WORD.label_map(scores, (5, 7), WORDS, classes_per_pass=4)
    assert torch.equal(labels.long(), expected.argmax(dim=0))
    torch.testing.assert_close(best, expected.amax(dim=0))


def test_one_word_per_class_is_the_plain_rule():
    scores = torch.randn(3, 4, 4)
    classes = torch.arange(3)
    assert torch.equal(BEST_WORD.probabilities(scores, classes), SOFTMAX.probabilities(scores))
    assert torch.equal(BEST_WORD.label_map(scores, (9, 8), classes)[0], SOFTMAX.label_map(scores, (9, 8))[0])


# ---------------------------------------------------------------------- threshold


def test_weak_pixels_become_other_or_the_background():
    scores = torch.tensor([[0.2, 0.9, 0.4], [0.3, 0.1, 0.6]])[:, None]
    labels, best = ScoreRule(threshold=0.5).label_map(scores, (1, 3))
    assert labels.tolist() == [[2, 0, 1]], "label 2 stands for 'other'"
    torch.testing.assert_close(best, torch.tensor([[0.3, 0.9, 0.6]]))
    assert ScoreRule(threshold=0.5, below=0).label_map(scores, (1, 3))[0].tolist() == [[0, 0, 1]]
    assert ScoreRule(threshold=0.5).below_is(1).label_map(scores, (1, 3))[0].tolist() == [[1, 0, 1]]


def test_without_threshold_every_pixel_has_a_class():
    assert ScoreRule().label_map(torch.full((3, 2, 2), 1e-6), (2, 2))[0].max() == 0
