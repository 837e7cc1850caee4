"""Cosine cost volumes between image features and class embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_cost(image: Tensor, text: Tensor) -> Tensor:
    """Return the cosine similarity of every pixel and every prompt.

    Args:
        image: [B, C, h, w] features, any length.
        text: [T, P, C] unit embeddings.

    Returns:
        [B, T, P, h, w] in -1..1, without temperature.
    """
    # At least in fp32: similarities of a trained CLIP differ in the third digit, where bf16 ends.
    with torch.autocast(image.device.type, enabled=False):
        dtype = torch.promote_types(image.dtype, torch.float32)
        return torch.einsum("bchw,tpc->btphw", F.normalize(image.to(dtype), dim=1), text.to(dtype))
