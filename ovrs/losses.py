"""Training criteria, each with the ignore rules of the published protocols."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.structures import IGNORE_LABEL

Activation = Literal["sigmoid", "softmax"]


def resize_to_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Enlarge [B, T, h, w] logits bilinearly to the size of [B, H, W] labels, in fp32."""
    return F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)


class BinaryCrossEntropy(nn.Module):
    """Per-class binary cross-entropy, averaged over pixels and classes (CAT-Seg, GSNet).

    Args:
        ignore_mode: ``negative`` makes an ignored pixel a negative of every class, as all official runs
            do (gsnet spec, section 6); ``mask`` leaves it out of the mean, as the GSNet paper words it.
    """

    activation: Activation = "sigmoid"

    def __init__(self, ignore_mode: str = "negative") -> None:
        super().__init__()
        if ignore_mode not in ("negative", "mask"):
            raise ValueError(f"MODEL.LOSS.IGNORE_MODE must be 'negative' or 'mask', got {ignore_mode!r}.")
        self.ignore_mode = ignore_mode

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of [B, T, h, w] logits and [B, H, W] labels (255 ignored)."""
        logits = resize_to_labels(logits, labels)
        valid = labels != IGNORE_LABEL
        # softplus(x) - x * y equals the cross-entropy and needs no one-hot target.
        positive = logits.gather(1, labels.masked_fill(~valid, 0)[:, None])[:, 0]
        negatives = F.softplus(logits)
        if self.ignore_mode == "mask":
            negatives, count = negatives * valid[:, None], valid.sum().clamp(min=1) * logits.shape[1]
        else:
            count = logits.numel()
        return (negatives.sum() - (positive * valid).sum()) / count


LOSSES = {"bce": BinaryCrossEntropy}


def build_loss(name: str, ignore_mode: str) -> nn.Module:
    """Build ``MODEL.LOSS``.

    Raises:
        ValueError: unknown name or ignore mode.
    """
    if name not in LOSSES:
        raise ValueError(f"MODEL.LOSS.NAME is {name!r}; known losses are {', '.join(LOSSES)}.")
    return LOSSES[name](ignore_mode)


def activate(logits: Tensor, activation: Activation) -> Tensor:
    """Turn [B, T, ...] logits into scores in 0..1."""
    return logits.sigmoid() if activation == "sigmoid" else torch.softmax(logits, dim=1)
