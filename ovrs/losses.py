"""Training criteria, each with the ignore rules of the published protocols.

Where data sets share a vocabulary, an image's own set may label only some of the classes. Both criteria take
``labelled``, bool [B, T], and leave the other classes of an image out; ``None`` counts them all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.errors import ConfigError, choose
from ovrs.structures import IGNORE_LABEL


def resize_to_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Enlarge [B, T, h, w] logits bilinearly to the size of [B, H, W] labels, in fp32."""
    return F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)


class BinaryCrossEntropy(nn.Module):
    """Per-class binary cross-entropy, averaged over pixels and classes (CAT-Seg, GSNet).

    Args:
        ignore_mode: ``negative`` makes an ignored pixel a negative of every class, as all official runs
            do; ``mask`` leaves it out of the mean, as the GSNet paper words it.
    """

    def __init__(self, ignore_mode: str = "negative") -> None:
        super().__init__()
        self.ignore_mode = choose("MODEL.LOSS.IGNORE_MODE", ignore_mode, ("negative", "mask"))

    def forward(self, logits: Tensor, labels: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the scalar loss of [B, T, h, w] logits and [B, H, W] labels (255 ignored, else labelled classes)."""
        logits = resize_to_labels(logits, labels)
        valid = labels != IGNORE_LABEL
        # softplus(x) - x * y equals the cross-entropy and needs no one-hot target.
        positive = logits.gather(1, labels.masked_fill(~valid, 0)[:, None])[:, 0]
        negatives = F.softplus(logits)
        if self.ignore_mode == "mask":
            negatives, pixels = negatives * valid[:, None], valid.sum(dim=(1, 2))
        else:
            pixels = torch.full_like(labels[:, 0, 0], labels[0].numel())
        if labelled is None:
            labelled = torch.ones_like(logits[:, :, 0, 0], dtype=torch.bool)
        count = (pixels * labelled.sum(dim=1)).sum().clamp(min=1)
        return ((negatives.sum(dim=(2, 3)) * labelled).sum() - (positive * valid).sum()) / count


class CrossEntropy(nn.Module):
    """Softmax cross-entropy over the classes, summed over the labelled pixels (HG-RSOVSSeg).

    Args:
        normalise_by: the sum is divided by the number of ``all_pixels`` of the batch, ignored and padded ones
            included, as the official runs do, or of ``valid_pixels``.
        balance: a pixel's share of the loss is divided by its class's pixels in the batch to this power: 0 counts
            all pixels alike, 1 all classes. The shares have the mean 1.

    Raises:
        ConfigError: unknown divisor, or a balance that is not in 0..1.
    """

    def __init__(self, normalise_by: str = "all_pixels", balance: float = 0.0) -> None:
        super().__init__()
        if not 0 <= balance <= 1:
            raise ConfigError(f"MODEL.LOSS.BALANCE must be from 0 to 1, got {balance}.")
        self.balance = balance
        self.normalise_by = choose("MODEL.LOSS.NORMALISE_BY", normalise_by, ("all_pixels", "valid_pixels"))

    def forward(self, logits: Tensor, labels: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the scalar loss of [B, T, h, w] logits and [B, H, W] labels (255 ignored, else labelled classes)."""
        logits = resize_to_labels(logits, labels)
        if labelled is not None:
            logits = logits.masked_fill(~labelled[:, :, None, None], -torch.inf)  # the softmax is over the others
        weights = self._shares(labels, logits.shape[1]) if self.balance else None
        total = F.cross_entropy(logits, labels, weights, ignore_index=IGNORE_LABEL, reduction="sum")
        if self.normalise_by == "all_pixels":
            return total / labels.numel()
        return total / (labels != IGNORE_LABEL).sum().clamp(min=1)

    def _shares(self, labels: Tensor, classes: int) -> Tensor:
        """Return [T] weights of the classes whose mean over the labelled pixels is 1."""
        pixels = torch.bincount(labels[labels != IGNORE_LABEL], minlength=classes).float()
        shares = pixels.clamp(min=1) ** -self.balance
        return shares * pixels.sum() / (shares * pixels).sum().clamp(min=1e-6)


def build_loss(
    name: str, ignore_mode: str = "negative", normalise_by: str = "all_pixels", balance: float = 0.0
) -> nn.Module:
    """Build ``MODEL.LOSS``; each loss reads the keys that concern it.

    Raises:
        ConfigError: unknown name, ignore mode or divisor.
    """
    if choose("MODEL.LOSS.NAME", name, ("bce", "ce")) == "bce":
        return BinaryCrossEntropy(ignore_mode)
    return CrossEntropy(normalise_by, balance)
