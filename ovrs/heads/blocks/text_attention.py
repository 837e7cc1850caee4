"""Text-guided attention over image features, one map per class (TAM of HG-RSOVSSeg)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.precision import full_precision
from ovrs.heads.blocks.work import ATTENTION, NORM_OPERATIONS, NORMS

_EPS = 1e-5  # of both instance norms; the second works on variances of that size, so it shapes the result


class Attended(NamedTuple):
    """What :class:`TextAttention` found for all classes of an image; small beside the guidance itself.

    Attributes:
        visual: [B, Co, h, w] projected image features, V_f in the paper.
        weights: [B, T, h, w] share of each class in each pixel, less its mean over the pixels.
        scale: [B, T, Co] what the class's text value is multiplied into, after the instance norm.
    """

    visual: Tensor
    weights: Tensor
    scale: Tensor


class TextAttention(nn.Module):
    """Lets the classes compete for every pixel and returns image features as each class sees them.

    As published, with X [Co, L] the image features, T the text and A the softmax over classes::

        Q = IN(query X);  K = key T;  V = value T;  A = softmax_t(Q^T K)          # no 1 / sqrt(Ck)
        H_t = IN(mix (A_t V_t));  HG_t = GELU(fuse (GELU(visual X) * H_t))

    A_t V_t has rank one and the norm removes the bias of ``mix``, so H_t is known without forming it: with
    a = A_t - mean(A_t) and u = mix V_t, H_t = a * s, where s = u / sqrt(u^2 var(A_t) + eps). The class's
    guidance is then GELU(a * (fuse diag(s) GELU(visual X)) + bias), the same to the last digits.

    The biases of ``query``, ``key`` and ``mix`` cannot change the result (a norm or the softmax removes
    them); they are here because published checkpoints hold them.

    Args:
        channels: of the image features and of the guidance, Co.
        text_dim: width of the text embeddings, C.
        key_dim: width in which pixels and classes are compared, Ck.
    """

    exact_weights = True  # see ovrs.inference.copies

    def __init__(self, channels: int, text_dim: int, key_dim: int) -> None:
        super().__init__()
        self.visual = nn.Conv1d(channels, channels, 1)
        self.query = nn.Conv1d(channels, key_dim, 1)
        self.key = nn.Conv1d(text_dim, key_dim, 1)
        self.value = nn.Conv1d(text_dim, channels, 1)
        self.mix = nn.Conv1d(channels, channels, 1)
        self.fuse = nn.Conv1d(channels, channels, 1)

    def forward(self, image: Tensor, text: Tensor) -> Attended:
        """Compare [B, Co, h, w] features with [T, C] embeddings; here the classes see each other."""
        grid = image.shape[-2:]
        # In fp32: the variances of the second norm are near its epsilon, below what bf16 resolves.
        with full_precision(image):
            dtype = self.query.weight.dtype
            pixels, words = image.to(dtype).flatten(2), text.to(dtype).T
            query = F.instance_norm(self.query(pixels), eps=_EPS)
            weights = (self.key(words).T @ query).softmax(dim=1)
            weights = weights - weights.mean(dim=2, keepdim=True)
            variance = weights.square().mean(dim=2)
            value = F.conv1d(self.value(words), self.mix.weight).T
            scale = value / (value.square() * variance[..., None] + _EPS).sqrt()
            visual = F.gelu(self.visual(pixels))
        return Attended(visual.unflatten(2, grid), weights.unflatten(2, grid), scale)

    def extra_work(self, image: Tensor, text: Tensor) -> dict[str, int]:
        """The weighted values of every class and their mixing; the instance norms before and after."""
        images, channels, height, breadth = image.shape
        classes, pixels = len(text), height * breadth
        maps = images * classes * channels * pixels
        norms = NORM_OPERATIONS[False] * (images * self.query.out_channels * pixels + maps)
        return {ATTENTION: maps * (1 + channels) - classes * channels**2, NORMS: norms}

    def guidance(self, attended: Attended, classes: slice) -> Tensor:
        """Return the guidance of some classes, [B, t, Co, h, w]; each is made of its own share alone."""
        weights, scale = attended.weights[:, classes], attended.scale[:, classes]
        kernels = self.fuse.weight[:, :, 0] * scale[:, :, None]
        fused = kernels.flatten(1, 2) @ attended.visual.flatten(2)
        fused = fused.unflatten(1, kernels.shape[1:3]).unflatten(3, weights.shape[-2:])
        return F.gelu(torch.addcmul(self.fuse.bias[:, None, None], weights[:, :, None], fused))
