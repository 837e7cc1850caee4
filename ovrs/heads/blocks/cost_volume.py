"""Cosine cost volumes between image features and class embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.heads.blocks.precision import full_precision


def cosine_cost(image: Tensor, text: Tensor) -> Tensor:
    """Return the cosine similarity of every pixel and every prompt.

    Args:
        image: [B, C, h, w] features, any length.
        text: [T, P, C] unit embeddings.

    Returns:
        [B, T, P, h, w] in -1..1, without temperature.
    """
    # At least in fp32: similarities of a trained CLIP differ in the third digit, where bf16 ends.
    with full_precision(image):
        dtype = torch.promote_types(image.dtype, torch.float32)
        return torch.einsum("bchw,tpc->btphw", F.normalize(image.to(dtype), dim=1), text.to(dtype))


def word_cosines(image: Tensor, words: Tensor) -> Tensor:
    """Return the cosine similarity of every pixel and every word, [B, Q, h, w], of unit embeddings [Q, C]."""
    return cosine_cost(image, words[:, None]).squeeze(2)


def rotation_cost(rotated: Tensor, text: Tensor) -> Tensor:
    """Return the cosine similarity of every class and every pixel under every rotation (RSKT-Seg; Eq. 10 of DR-Seg).

    Args:
        rotated: [B, R, C, h, w] features that were turned back.
        text: [T, C] unit embeddings.

    Returns:
        [B, T, R, h, w] in -1..1: rotations take the place of prompts.
    """
    cost = cosine_cost(rotated.flatten(0, 1), text[:, None])
    return cost.squeeze(2).unflatten(0, rotated.shape[:2]).transpose(1, 2)
