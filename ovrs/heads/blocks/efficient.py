"""Efficient aggregation of cost maps over space and classes (RSKT-Seg's RS-Fusion, which DR-Seg keeps)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.pooling import average_pool, enlarge_aligned
from ovrs.heads.blocks.work import GUIDANCE, as_published

_MLP_RATIO = 3
_KERNEL = 7
_REDUCTION = 2  # keys and values of the spatial attention lie on a grid coarser by this


class GatedMlp(nn.Module):
    """fc3(ReLU6(fc1 x) * fc2 x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(width, _MLP_RATIO * width)
        self.fc3 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., C] to [..., C]."""
        gate, value = F.linear(
            x, torch.cat([self.fc1.weight, self.fc2.weight]), torch.cat([self.fc1.bias, self.fc2.bias])
        ).chunk(2, dim=-1)
        return self.fc3(F.relu6(gate) * value)

    extra_work = as_published


class ReducedAttention(nn.Module):
    """Attention of every position of a cost map to a coarser grid of the same map, guided by the image.

    Queries and keys see ``[y ; guidance]``. Linear layers and strided convolutions over that pair are sums of
    one over each, so the guidance's share is computed once per image and added to every class.

    Args:
        width: channels of the cost maps and of the guidance.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.q = nn.Linear(2 * width, width)
        self.k = nn.Linear(2 * width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.reduce_k = nn.Conv2d(2 * width, 2 * width, _REDUCTION, stride=_REDUCTION)
        self.norm_k = nn.LayerNorm(2 * width)
        self.reduce_v = nn.Conv2d(width, width, _REDUCTION, stride=_REDUCTION)
        self.norm_v = nn.LayerNorm(width)

    def forward(self, y: Tensor, guidance: Tensor) -> Tensor:
        """Attend; ``y`` [B, T, H, W, C] normalised, ``guidance`` [B, H, W, C] -> [B, T, H, W, C]."""
        shape, width = y.shape, self.width
        q = _over_both(self.q, y, guidance[:, None])

        k_y, k_g = self.reduce_k.weight.split(width, dim=1)
        maps = y.flatten(0, 1).permute(0, 3, 1, 2)
        bias = F.pad(self.reduce_v.bias, (2 * width, 0))
        reduced = F.conv2d(maps, torch.cat([k_y, self.reduce_v.weight]), bias, stride=_REDUCTION)
        k, v = reduced.unflatten(0, shape[:2]).split([2 * width, width], dim=2)
        k = k + F.conv2d(guidance.permute(0, 3, 1, 2), k_g, self.reduce_k.bias, stride=_REDUCTION)[:, None]
        k = self.k(self.norm_k(k.permute(0, 1, 3, 4, 2)))
        v = self.v(self.norm_v(v.permute(0, 1, 3, 4, 2)))

        # [B, T, h, w, C] -> [B * T, heads, h * w, C / heads]
        q, k, v = (
            part.flatten(2, 3).flatten(0, 1).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2)).view(shape)

    def extra_work(self, y: Tensor, guidance: Tensor) -> dict[str, int]:
        """The guidance's part of the queries and of the reduction before the keys, for all classes but one."""
        images, classes, height, breadth, width = y.shape
        keys = (height // _REDUCTION) * (breadth // _REDUCTION) * _REDUCTION**2 * 2
        return {GUIDANCE: (classes - 1) * images * (height * breadth + keys) * width**2}


class SpatialFusion(nn.Module):
    """Reduced attention and a gated MLP whose output is mixed by a depthwise convolution.

    Args:
        width: channels of the cost maps and of the guidance.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = ReducedAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GatedMlp(width)
        self.mix = nn.Conv2d(width, width, _KERNEL, padding=_KERNEL // 2, groups=width)
        self.apply(_initialise)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Refine ``x`` [B, T, H, W, C] with ``guidance`` [B, H, W, C]."""
        x = x + self.attn(self.norm1(x), guidance)
        hidden = self.mlp(self.norm2(x)).flatten(0, 1).permute(0, 3, 1, 2)
        return x + self.mix(hidden).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class ClassFusion(nn.Module):
    """Softmax attention between the classes at each position, guided by their embeddings; no padding.

    Args:
        width: channels of the cost maps and of the guidance.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.q = nn.Linear(2 * width, width)
        self.k = nn.Linear(2 * width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = GatedMlp(width)
        self.apply(_initialise)

    def forward(self, x: Tensor, guidance: Tensor, pooling: int) -> Tensor:
        """Add class-attended maps to ``x`` [B, T, H, W, C]; ``guidance`` [T, C]."""
        pooled = average_pool(x, pooling)
        pooled = pooled + self._attend(self.norm1(pooled), guidance)
        pooled = pooled + F.relu6(self.mlp(self.norm2(pooled)))
        return x + enlarge_aligned(pooled, x.shape[2:4])

    def extra_work(self, x: Tensor, guidance: Tensor, pooling: int) -> dict[str, int]:
        """The guidance's half of the queries and keys, for all positions but one."""
        images, classes, height, breadth, width = x.shape
        positions = images * (height // pooling) * (breadth // pooling)
        return {GUIDANCE: (positions - 1) * classes * 2 * width**2}

    def attention(self, x: Tensor, guidance: Tensor, pooling: int) -> Tensor:
        """Return who looks at whom, [B, T, T, h, w]: row looks at column, mean of the heads; arguments as above."""
        pooled = average_pool(x, pooling)
        q, k, _ = self._parts(self.norm1(pooled), guidance)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1).mean(dim=1)
        return weights.unflatten(0, (len(x), *pooled.shape[2:4])).permute(0, 3, 4, 1, 2)

    def _parts(self, y: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [B * h * w, heads, T, C / heads] of normalised maps [B, T, h, w, C]."""
        q, k = (_over_both(layer, y, guidance[:, None, None]) for layer in (self.q, self.k))
        q, k, v = (
            part.permute(0, 2, 3, 1, 4).flatten(0, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (q, k, self.v(y))
        )
        return q, k, v

    def _attend(self, y: Tensor, guidance: Tensor) -> Tensor:
        q, k, v = self._parts(y, guidance)
        out = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        batch, _, height, width, _ = y.shape
        return out.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2, 4)


def _over_both(layer: nn.Linear, y: Tensor, guidance: Tensor) -> Tensor:
    """Return ``layer([y ; guidance])``; the guidance's share is computed at its own size and broadcast."""
    own, shared = layer.weight.split(y.shape[-1], dim=1)
    return F.linear(y, own) + F.linear(guidance, shared, layer.bias)


def _initialise(module: nn.Module) -> None:
    """Start as the official training of RSKT-Seg does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(module.bias)
