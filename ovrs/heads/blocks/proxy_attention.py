"""Attention weights from another tower's features (ProxyCLIP, ECCV 2024, section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def proxy_attention(proxy: Tensor, beta: float = 1.2, gamma: float = 3.0) -> Tensor:
    """Return who looks at whom, by the likeness of a proxy's patches.

    Similarities below ``beta`` times their mean are cut off, the rest is sharpened by ``gamma``. The mean is each
    image's own, so that a result does not depend on the other images of a batch.

    Args:
        proxy: [B, D, h, w] patch features, any length.
        beta: threshold, as a multiple of the mean cosine.
        gamma: inverse temperature.

    Returns:
        [B, h * w, h * w]; rows sum to 1. A patch always sees itself.
    """
    # The cut is a step, so rounding decides about similarities next to it: rows in memory are patches, as published.
    unit = F.normalize(proxy.float().flatten(2).transpose(1, 2).contiguous(), dim=-1)
    similarity = unit @ unit.transpose(1, 2)
    threshold = beta * similarity.mean(dim=(1, 2), keepdim=True)
    logits = gamma * (similarity - threshold)
    cut = similarity < threshold
    cut.diagonal(dim1=1, dim2=2).fill_(False)  # all patches alike: 1 may be below beta times the mean
    return logits.masked_fill_(cut, float("-inf")).softmax(dim=-1)
