import math

import pytest
import torch
import torch.nn.functional as F

from ovrs.errors import ConfigError
from ovrs.losses import BinaryCrossEntropy, CrossEntropy, build_loss, resize_to_labels
from ovrs.structures import IGNORE_LABEL

CLASSES = 5


def make_batch(ignored: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    logits = 4 * torch.randn(2, CLASSES, 6, 7)
    labels = torch.randint(0, CLASSES, (2, 24, 28))
    labels[torch.rand(labels.shape) < ignored] = IGNORE_LABEL
    return logits, labels


def explicit_targets(labels: torch.Tensor) -> torch.Tensor:
    """[B, T, H, W] one-hot labels; ignored pixels are all zero."""
    return torch.stack([(labels == t).float() for t in range(CLASSES)], dim=1)


def explicit_loss(mode: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    enlarged = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    elements = F.binary_cross_entropy_with_logits(enlarged, explicit_targets(labels), reduction="none")
    if mode == "mask":
        elements = elements.permute(0, 2, 3, 1)[labels != IGNORE_LABEL]
    return elements.mean()


@pytest.mark.parametrize("mode", ["negative", "mask"])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_bce_and_its_gradient_equal_torch_on_one_hot_targets(mode: str, ignored: float):
    logits, labels = make_batch(ignored)
    logits.requires_grad_()
    actual, expected = BinaryCrossEntropy(mode)(logits, labels), explicit_loss(mode, logits, labels)
    torch.testing.assert_close(actual, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (actual, expected)]
    assert gradients[1].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_modes_differ_only_where_pixels_are_ignored():
    modes = [BinaryCrossEntropy(mode) for mode in ("negative", "mask")]
    complete, partial = make_batch(0.0), make_batch(0.5)
    torch.testing.assert_close(modes[0](*complete), modes[1](*complete))
    assert abs(modes[0](*partial) - modes[1](*partial)) > 1e-4


def test_all_ignored_batch_counts_as_negatives_or_not_at_all():
    logits, labels = make_batch()
    logits.requires_grad_()
    labels[:] = IGNORE_LABEL
    negative, masked = (BinaryCrossEntropy(mode)(logits, labels) for mode in ("negative", "mask"))
    torch.testing.assert_close(negative, F.softplus(resize_to_labels(logits, labels)).mean())
    assert masked == 0.0
    assert torch.autograd.grad(negative, logits)[0].abs().max() > 0
    assert torch.equal(torch.autograd.grad(masked, logits)[0], torch.zeros_like(logits))


@pytest.mark.parametrize("mode", ["negative", "mask"])
def test_extreme_logits_give_finite_loss_and_gradient(mode: str):
    _, labels = make_batch()
    logits = torch.full((2, CLASSES, 6, 7), 1e4, requires_grad=True)
    loss = BinaryCrossEntropy(mode)(logits, labels)
    loss.backward()
    torch.testing.assert_close(loss, explicit_loss(mode, logits, labels))
    assert torch.isfinite(logits.grad).all()


def test_loss_of_low_precision_logits_is_computed_in_fp32():
    logits, labels = make_batch()
    loss = BinaryCrossEntropy()(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, BinaryCrossEntropy()(logits.bfloat16().float(), labels))


def test_zero_logits_cost_ln_2():
    _, labels = make_batch()
    assert BinaryCrossEntropy()(torch.zeros(2, CLASSES, 6, 7), labels).item() == pytest.approx(math.log(2))


# ---------------------------------------------------------------------- classes that a data set does not label

LABELLED = torch.tensor([[True, False, True, True, False], [True, True, True, True, True]])


def make_partly_labelled_batch() -> tuple[torch.Tensor, torch.Tensor]:
    logits, labels = make_batch()
    labels[0][(labels[0] == 1) | (labels[0] == 4)] = 3
    return logits.requires_grad_(), labels


@pytest.mark.parametrize("mode", ["negative", "mask"])
def test_bce_is_the_mean_over_the_classes_that_an_images_set_labels(mode: str):
    logits, labels = make_partly_labelled_batch()
    elements = F.binary_cross_entropy_with_logits(
        resize_to_labels(logits, labels), explicit_targets(labels), reduction="none"
    )
    counted = LABELLED[:, :, None, None].expand_as(elements)
    if mode == "mask":
        counted = counted & (labels != IGNORE_LABEL)[:, None]
    torch.testing.assert_close(BinaryCrossEntropy(mode)(logits, labels, LABELLED), elements[counted].mean())


@pytest.mark.parametrize("normalise_by", ["all_pixels", "valid_pixels"])
def test_ce_is_the_softmax_over_the_classes_that_an_images_set_labels(normalise_by: str):
    logits, labels = make_partly_labelled_batch()
    renumbered = torch.full((256,), IGNORE_LABEL)
    renumbered[[0, 2, 3]] = torch.arange(3)
    loss = CrossEntropy(normalise_by)
    first = loss(logits[:1, LABELLED[0]], renumbered[labels[:1]])
    second = loss(logits[1:], labels[1:])
    sizes = [float((labels[i] != IGNORE_LABEL).sum()) if normalise_by == "valid_pixels" else 1.0 for i in (0, 1)]
    expected = (first * sizes[0] + second * sizes[1]) / sum(sizes)
    torch.testing.assert_close(loss(logits, labels, LABELLED), expected)


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), BinaryCrossEntropy("mask"), CrossEntropy()])
def test_classes_that_a_set_does_not_label_get_no_gradient_from_its_images(loss: torch.nn.Module):
    logits, labels = make_partly_labelled_batch()
    (gradient,) = torch.autograd.grad(loss(logits, labels, LABELLED), logits)
    moved = gradient.abs().amax(dim=(2, 3)) > 0
    assert torch.equal(moved, LABELLED)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), BinaryCrossEntropy("mask"), CrossEntropy()])
def test_labelling_all_classes_changes_nothing(loss: torch.nn.Module):
    logits, labels = make_batch()
    assert torch.equal(loss(logits, labels, torch.ones(2, CLASSES, dtype=torch.bool)), loss(logits, labels))


# ---------------------------------------------------------------------- softmax


@pytest.mark.parametrize("normalise_by", ["all_pixels", "valid_pixels"])
def test_ce_is_torchs_sum_over_labelled_pixels_with_the_chosen_divisor(normalise_by: str):
    logits, labels = make_batch()
    valid = int((labels != IGNORE_LABEL).sum())
    assert 0 < valid < labels.numel()
    total = F.cross_entropy(resize_to_labels(logits, labels), labels, ignore_index=IGNORE_LABEL, reduction="sum")
    divisor = labels.numel() if normalise_by == "all_pixels" else valid
    torch.testing.assert_close(CrossEntropy(normalise_by)(logits, labels), total / divisor)


@pytest.mark.parametrize("normalise_by", ["all_pixels", "valid_pixels"])
def test_all_ignored_batch_costs_no_ce(normalise_by: str):
    logits, labels = make_batch()
    logits.requires_grad_()
    labels[:] = IGNORE_LABEL
    loss = CrossEntropy(normalise_by)(logits, labels)
    loss.backward()
    assert loss == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_name_chooses_the_loss():
    assert build_loss("bce", ignore_mode="mask").ignore_mode == "mask"
    assert build_loss("ce", normalise_by="valid_pixels").normalise_by == "valid_pixels"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("dice",), r"MODEL\.LOSS\.NAME must be one of bce, ce, got 'dice'"),
        (("bce", "drop"), r"MODEL\.LOSS\.IGNORE_MODE must be one of negative, mask, got 'drop'"),
        (("ce", "mask", "images"), r"MODEL\.LOSS\.NORMALISE_BY must be one of all_pixels, valid_pixels, got 'images'"),
    ],
)
def test_unknown_loss_or_option_is_refused_with_its_key(options: tuple[str, ...], message: str):
    with pytest.raises(ValueError, match=message):
        build_loss(*options)


def test_balance_shares_the_loss_among_classes():
    """By hand: every class's pixels together weigh as much as its number of pixels to the power 1 - balance."""
    logits, labels = make_batch()
    labels[labels == CLASSES - 1] = 0  # one class does not occur
    enlarged = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    each = F.cross_entropy(enlarged, labels, ignore_index=IGNORE_LABEL, reduction="none")
    for balance in (0.0, 0.5, 1.0):
        present = [t for t in range(CLASSES) if (labels == t).any()]
        means = torch.stack([each[labels == t].mean() for t in present])
        masses = torch.tensor([float((labels == t).sum()) ** (1 - balance) for t in present])
        expected = (means * masses).sum() / masses.sum()
        torch.testing.assert_close(CrossEntropy("valid_pixels", balance)(logits, labels), expected)


def test_balance_of_labels_that_are_all_ignored_is_no_nan():
    logits, labels = make_batch()
    labels[:] = IGNORE_LABEL
    assert CrossEntropy("valid_pixels", 0.5)(logits, labels) == 0.0


@pytest.mark.parametrize("balance", [-0.1, 1.5])
def test_balance_out_of_range_is_refused(balance: float):
    with pytest.raises(ConfigError, match=rf"MODEL\.LOSS\.BALANCE must be from 0 to 1, got {balance}"):
        build_loss("ce", balance=balance)
