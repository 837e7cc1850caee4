"""Attention between the classes at each position (CAT-Seg, section 3.4)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.pooling import average_pool, enlarge_aligned
from ovrs.heads.blocks.precision import full_precision
from ovrs.heads.blocks.swin import Mlp
from ovrs.heads.blocks.work import PADDING

Kind = Literal["linear", "full"]
_EPSILON = 1e-6


class ClassAttention(nn.Module):
    """Lets the cost maps of all classes see each other, guided by the class embeddings.

    The original fills the class axis with copies of one learned padding token up to ``pad_to`` classes and
    lets them take part as keys and values. They are the same at every position, so here their sums
    are formed once: linear attention gets one weighted extra term, softmax attention one extra key whose
    logit is raised by the logarithm of the number of copies. Same digits, a fifth of the work at 40 classes.

    Args:
        width: channels of the cost maps and of the text guidance.
        heads: attention heads.
        kind: ``linear`` (kernel elu + 1) or ``full`` (softmax).
        pad_to: number of classes up to which padding takes part; 0 for no padding.
    """

    def __init__(self, width: int, heads: int, kind: Kind = "linear", pad_to: int = 256) -> None:
        super().__init__()
        if kind not in ("linear", "full"):
            raise ValueError(f"CLASS_ATTENTION must be 'linear' or 'full', got {kind!r}.")
        self.heads, self.kind, self.pad_to = heads, kind, pad_to
        self.padding_tokens = nn.Parameter(torch.zeros(width))
        self.padding_guidance = nn.Parameter(torch.zeros(width))
        self.norm1 = nn.LayerNorm(width)
        self.q = nn.Linear(2 * width, width)
        self.k = nn.Linear(2 * width, width)
        self.v = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width, nn.ReLU)

    def forward(self, x: Tensor, guidance: Tensor, pooling: int = 1) -> Tensor:
        """Add class-attended maps to ``x``.

        Args:
            x: [B, T, H, W, C] cost maps.
            guidance: [T, C] text guidance, the same at every position.
            pooling: side of the average pooling before attention; its result is enlarged again.

        Returns:
            [B, T, H, W, C]. The attended map contains its own input, so this is about ``2 x + ...``.
        """
        pooled = average_pool(x, pooling)
        pooled = pooled + self._attend(self.norm1(pooled), guidance)
        pooled = pooled + self.mlp(self.norm2(pooled))
        return x + enlarge_aligned(pooled, x.shape[2:4])

    def extra_work(self, x: Tensor, guidance: Tensor, pooling: int = 1) -> dict[str, int]:
        """Padding tokens through attention and MLP, at every position."""
        images, classes, height, breadth, width = x.shape
        copies = max(self.pad_to - classes, 0)
        per_token = 13 * width**2  # q and k of [x ; guidance], v, and the MLP
        if self.kind == "linear":
            attention = copies * (2 * width * (width // self.heads) + width)
        else:
            attention = 2 * width * ((classes + copies) ** 2 - classes**2)
        positions = images * (height // pooling) * (breadth // pooling)
        return {PADDING: positions * (copies * per_token + attention)}

    def attention(self, x: Tensor, guidance: Tensor, pooling: int = 1) -> Tensor:
        """Return who looks at whom, [B, T, T, h, w]: row looks at column, mean of the heads; arguments as above.

        A row's sum is 1 less the share of the padding.
        """
        q, k, _, k_pad, _, copies = self._parts(self.norm1(average_pool(x, pooling)), guidance)
        if self.kind == "linear":
            q, k, k_pad = (F.elu(part.float()) + 1.0 for part in (q, k, k_pad))
            scores = q @ k.transpose(-1, -2)
            padding = copies * (q * k_pad).sum(-1, keepdim=True)
            weights = scores / (scores.sum(-1, keepdim=True) + padding + _EPSILON)
        else:
            k = torch.cat([k, k_pad.expand(*k.shape[:-2], 1, -1)], dim=-2)
            logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            logits[..., -1] += math.log(copies) if copies else -math.inf
            weights = logits.softmax(dim=-1)[..., :-1]
        return weights.mean(dim=3).permute(0, 3, 4, 1, 2)

    def _attend(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Attention over the class axis of normalised maps [B, T, h, w, C]; no output projection."""
        q, k, v, k_pad, v_pad, copies = self._parts(x, guidance)
        if self.kind == "linear":
            out = _linear_attention(q, k, v, k_pad, v_pad, copies)
        else:  # what trains is read even where no padding is left to stand for
            padded = copies > 0 or (self.pad_to > 0 and torch.is_grad_enabled())
            out = _softmax_attention(q, k, v, *((k_pad, v_pad) if padded else (None, None)), copies)
        return out.to(x.dtype).permute(0, 4, 1, 2, 3, 5).flatten(4, 5)

    def _parts(self, x: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]:
        """Return queries, keys and values [B, h, w, heads, T, d], key and value of the padding, and its copies."""
        width = x.shape[-1]
        q_x, q_g = self.q.weight.split(width, dim=1)
        k_x, k_g = self.k.weight.split(width, dim=1)
        own = F.linear(x, torch.cat([q_x, k_x, self.v.weight]), F.pad(self.v.bias, (2 * width, 0)))
        q, k, v = own.chunk(3, dim=-1)
        q = q + F.linear(guidance, q_g, self.q.bias)[:, None, None]
        k = k + F.linear(guidance, k_g, self.k.bias)[:, None, None]

        copies = max(self.pad_to - x.shape[1], 0)
        token = self.norm1(self.padding_tokens)
        k_pad = self.k(torch.cat([token, self.padding_guidance]))
        v_pad = self.v(token)

        # [B, T, h, w, C] -> [B, h, w, heads, T, C / heads]
        q, k, v = (part.unflatten(-1, (self.heads, -1)).permute(0, 2, 3, 4, 1, 5) for part in (q, k, v))
        k_pad, v_pad = (part.unflatten(-1, (self.heads, 1, -1)) for part in (k_pad, v_pad))
        return q, k, v, k_pad, v_pad, copies


def _linear_attention(q: Tensor, k: Tensor, v: Tensor, k_pad: Tensor, v_pad: Tensor, copies: int) -> Tensor:
    """phi(q) (sum phi(k) v) / (phi(q) . sum phi(k) + eps), phi = elu + 1, in fp32.

    Queries, keys and values are [..., heads, T, d]; ``k_pad`` and ``v_pad``, [heads, 1, d], are one further token
    that counts ``copies`` times.
    """
    with full_precision(q):
        q, k, v, k_pad, v_pad = (part.float() for part in (q, k, v, k_pad, v_pad))
        q, k, k_pad = (F.elu(part) + 1.0 for part in (q, k, k_pad))
        weight = copies * (q * k_pad).sum(-1, keepdim=True)
        if k.shape[-2] <= k.shape[-1]:  # few classes: T x T scores are smaller than d x d sums
            scores = q @ k.transpose(-1, -2)
            numerator, denominator = scores @ v, scores.sum(-1, keepdim=True)
        else:
            numerator = q @ (k.transpose(-1, -2) @ v)
            denominator = q @ k.sum(-2, keepdim=True).transpose(-1, -2)
        return (numerator + weight * v_pad) / (denominator + weight + _EPSILON)


def _softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, k_pad: Tensor | None, v_pad: Tensor | None, copies: int
) -> Tensor:
    """Softmax attention over T classes and ``copies`` of one padding token, if any; arguments as above."""
    mask = None
    if k_pad is not None and v_pad is not None:
        shape = (*k.shape[:-2], 1, k.shape[-1])
        k = torch.cat([k, k_pad.expand(shape)], dim=-2)
        v = torch.cat([v, v_pad.expand(shape)], dim=-2)
        mask = q.new_zeros(k.shape[-2])
        mask[-1] = math.log(copies) if copies else -math.inf
        mask = mask.expand(q.shape[-2], -1)
    lead = q.shape[:-3]
    q, k, v = (part.flatten(0, -4) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).unflatten(0, lead)
