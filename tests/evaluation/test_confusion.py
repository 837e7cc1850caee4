import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from ovrs.evaluation import ConfusionMatrix, EvaluationError

# Class 2 is predicted (twice) but never labelled; class 3 neither.
TRUTH = torch.tensor([[0, 0, 0, 0], [1, 1, 255, 255]])
PREDICTION = torch.tensor([[0, 0, 0, 1], [1, 2, 2, 3]])


def counted(truth, prediction, num_classes):
    matrix = ConfusionMatrix(num_classes)
    matrix.update(truth, prediction)
    return matrix


def test_counts_by_truth_row_and_prediction_column_without_ignored_pixels():
    counts = counted(TRUTH, PREDICTION, 4).counts
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_present_rule_by_hand():
    metrics = counted(TRUTH, PREDICTION, 4).metrics("present")
    np.testing.assert_allclose(metrics.iou, [75, 100 / 3, math.nan, math.nan])
    np.testing.assert_allclose(metrics.accuracy, [75, 50, math.nan, math.nan])
    np.testing.assert_allclose(metrics.precision, [100, 50, math.nan, math.nan])
    np.testing.assert_allclose(metrics.f1, [600 / 7, 50, math.nan, math.nan])
    assert metrics.miou == pytest.approx((75 + 100 / 3) / 2)
    assert metrics.fwiou == pytest.approx((4 * 75 + 2 * 100 / 3) / 6)
    assert metrics.macc == pytest.approx(62.5)
    assert metrics.aacc == pytest.approx(400 / 6)


def test_union_rule_counts_a_class_that_is_only_predicted_as_zero():
    metrics = counted(TRUTH, PREDICTION, 4).metrics("union")
    np.testing.assert_allclose(metrics.iou, [75, 100 / 3, 0, math.nan])
    np.testing.assert_allclose(metrics.accuracy, [75, 50, math.nan, math.nan])
    np.testing.assert_allclose(metrics.precision, [100, 50, 0, math.nan])
    np.testing.assert_allclose(metrics.f1, [600 / 7, 50, 0, math.nan])
    assert metrics.miou == pytest.approx((75 + 100 / 3 + 0) / 3)
    assert metrics.fwiou == pytest.approx((4 * 75 + 2 * 100 / 3) / 6)
    assert metrics.macc == pytest.approx(62.5)
    assert metrics.aacc == pytest.approx(400 / 6)


def test_a_class_predicted_only_where_labels_are_ignored_does_not_count():
    matrix = counted(torch.tensor([0, 1, 255]), torch.tensor([0, 1, 2]), 3)
    assert math.isnan(matrix.metrics("union").iou[2])


def test_a_class_that_is_labelled_but_never_predicted_has_no_precision_and_zero_f1():
    metrics = counted(torch.tensor([0, 1]), torch.tensor([0, 0]), 2).metrics()
    assert math.isnan(metrics.precision[1])
    assert metrics.iou[1] == metrics.accuracy[1] == metrics.f1[1] == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_integer_types_and_several_updates_give_the_same_counts(dtype):
    matrix = ConfusionMatrix(4)
    for truth, prediction in zip(TRUTH, PREDICTION, strict=True):
        matrix.update(truth.to(dtype), prediction.to(dtype))
    assert torch.equal(matrix.counts, counted(TRUTH, PREDICTION, 4).counts)


def test_counts_beyond_float32_stay_exact():
    matrix = ConfusionMatrix(2)
    matrix.counts = torch.tensor([[2**40, 0], [0, 2**40]])
    matrix.update(torch.tensor([0]), torch.tensor([1]))
    assert matrix.counts.tolist() == [[2**40, 1], [0, 2**40]]
    assert 0 < 100 - matrix.metrics().aacc < 1e-10


def test_merge_adds_and_leaves_the_other_alone():
    first, second = counted(TRUTH[0], PREDICTION[0], 4), counted(TRUTH[1], PREDICTION[1], 4)
    before = second.counts.clone()
    first.merge(second)
    assert torch.equal(first.counts, counted(TRUTH, PREDICTION, 4).counts)
    assert torch.equal(second.counts, before)


def test_all_reduce_in_one_process_is_a_copy():
    matrix = counted(TRUTH, PREDICTION, 4)
    total = matrix.all_reduce()
    assert torch.equal(total.counts, matrix.counts)
    total.update(torch.tensor([0]), torch.tensor([0]))
    assert total.counts.sum() == matrix.counts.sum() + 1


@pytest.mark.parametrize(
    ("truth", "prediction", "words"),
    [
        ([0, 3, 3, 255], [0, 0, 0, 0], ["ground truth", "3 (2 pixels)", "0..2"]),
        ([0, -1], [0, 0], ["ground truth", "-1 (1 pixels)"]),
        ([0, 0], [0, 7], ["prediction", "7 (1 pixels)"]),
        ([0, 255], [0, 255], ["prediction", "255 (1 pixels)"]),
        ([0, 0], [0, -2], ["prediction", "-2 (1 pixels)"]),
        ([0, 0], [0, 0, 0], ["(2,)", "(3,)"]),
        ([0, 0], [0.0, 1.0], ["prediction", "float32"]),
        ([True, False], [0, 1], ["ground truth", "bool"]),
    ],
)
def test_bad_labels_are_named_and_change_nothing(truth, prediction, words):
    matrix = ConfusionMatrix(3)
    with pytest.raises(EvaluationError) as error:
        matrix.update(torch.tensor(truth), torch.tensor(prediction))
    assert all(word in str(error.value) for word in words), str(error.value)
    assert matrix.counts.sum() == 0


def test_nothing_labelled_is_an_error_that_says_so():
    with pytest.raises(EvaluationError, match="no pixel carries a label"):
        counted(torch.full((4,), 255), torch.zeros(4, dtype=torch.int64), 2).metrics()


def test_unknown_rule_names_the_key_and_the_choices():
    with pytest.raises(EvaluationError, match=r"TEST\.MIOU_RULE .*present, union.*'all'"):
        counted(TRUTH, PREDICTION, 4).metrics("all")


def test_matrices_of_other_classes_do_not_merge():
    with pytest.raises(EvaluationError, match="2 and 3 classes"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))


@pytest.mark.parametrize("num_classes", [0, 256])
def test_impossible_number_of_classes_is_refused(num_classes):
    with pytest.raises(EvaluationError, match=str(num_classes)):
        ConfusionMatrix(num_classes)


def test_present_rule_agrees_with_detectron2():
    name, classes = "evaluation_test_random", [f"class {i}" for i in range(6)]
    generator = torch.Generator().manual_seed(0)
    truths = torch.randint(0, 5, (3, 20, 30), generator=generator)  # class 5 is never labelled
    truths[torch.rand(truths.shape, generator=generator) < 0.1] = 255
    predictions = torch.where(
        torch.rand(truths.shape, generator=generator) < 0.6,
        truths.clamp(max=5),
        torch.randint(0, 6, truths.shape, generator=generator),
    )

    files = [{"file_name": f"{i}.png", "sem_seg_file_name": str(i)} for i in range(len(truths))]
    DatasetCatalog.register(name, lambda: files)
    MetadataCatalog.get(name).set(stuff_classes=classes, ignore_label=255)
    try:
        reference = SemSegEvaluator(
            name, distributed=False, sem_seg_loading_fn=lambda file, dtype: truths[int(file)].numpy().astype(dtype)
        )
        reference.reset()
        scores = torch.nn.functional.one_hot(predictions, 6).permute(0, 3, 1, 2)
        reference.process(files, [{"sem_seg": score} for score in scores])
        expected = reference.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)

    ours = counted(truths, predictions, 6).metrics("present").named(classes)
    assert math.isnan(expected["IoU-class 5"])
    assert ours["aACC"] == pytest.approx(expected["pACC"], rel=1e-12)
    for figure in ["mIoU", "fwIoU", "mACC", *(f"{kind}-{name}" for kind in ("IoU", "ACC") for name in classes)]:
        assert ours[figure] == pytest.approx(expected[figure], rel=1e-12, nan_ok=True), figure
