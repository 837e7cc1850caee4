"""RSKT-Seg's aggregator layer written down naively: guidance concatenated for every class, attention spelt out.

It takes its weights from the layer under test. Maps are [B, T, C, H, W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.heads.blocks.aggregator import AggregatorLayer
from ovrs.heads.blocks.efficient import ClassFusion, GatedMlp, SpatialFusion


def naive_efficient_layer(
    layer: AggregatorLayer, x: Tensor, appearance: Tensor, guidance: Tensor, pooling: int
) -> Tensor:
    """RS-Fusion; ``appearance`` [B, C, H, W], ``guidance`` [T, C]."""
    return naive_class_fusion(layer.classes, naive_spatial_fusion(layer.spatial, x, appearance), guidance, pooling)


def naive_spatial_fusion(block: SpatialFusion, x: Tensor, appearance: Tensor) -> Tensor:
    """Its part over space."""
    attention, shape = block.attn, x.shape
    maps = _channels_last(x.flatten(0, 1))
    y = block.norm1(maps)
    z = torch.cat([y, _channels_last(appearance.repeat_interleave(shape[1], dim=0))], dim=-1)
    keys = _channels_last(attention.reduce_k(_channels_first(z)))
    values = _channels_last(attention.reduce_v(_channels_first(y)))
    attended = naive_attention(
        attention.q(z).flatten(1, 2),
        attention.k(attention.norm_k(keys)).flatten(1, 2),
        attention.v(attention.norm_v(values)).flatten(1, 2),
        attention.heads,
    )
    maps = maps + attention.proj(attended).unflatten(1, shape[-2:])
    mixed = block.mix(_channels_first(_gated(block.mlp, block.norm2(maps))))
    return (_channels_first(maps) + mixed).view(shape)


def naive_class_fusion(block: ClassFusion, x: Tensor, guidance: Tensor, pooling: int) -> Tensor:
    """Its part over classes."""
    batch, classes, _, height, breadth = x.shape
    pooled = F.avg_pool2d(x.flatten(0, 1), pooling)
    small = pooled.shape[-2:]
    tokens = pooled.unflatten(0, (batch, classes)).permute(0, 3, 4, 1, 2).flatten(0, 2)  # [B h w, T, C]
    y = block.norm1(tokens)
    z = torch.cat([y, guidance.expand(len(tokens), -1, -1)], dim=-1)
    tokens = tokens + block.proj(naive_attention(block.q(z), block.k(z), block.v(y), block.heads))
    tokens = tokens + _gated(block.mlp, block.norm2(tokens)).clamp(0, 6)
    maps = tokens.unflatten(0, (batch, *small)).permute(0, 3, 4, 1, 2).flatten(0, 1)
    maps = F.interpolate(maps, size=(height, breadth), mode="bilinear", align_corners=True)
    return x + maps.unflatten(0, (batch, classes))


def naive_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, head after head; [N, L, C], [N, S, C] and [N, S, C] -> [N, L, C]."""
    outputs = []
    for of_q, of_k, of_v in zip(*(part.chunk(heads, dim=-1) for part in (q, k, v)), strict=True):
        scores = torch.einsum("nld,nsd->nls", of_q, of_k) / of_q.shape[-1] ** 0.5
        weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        outputs.append(torch.einsum("nls,nsd->nld", weights, of_v))
    return torch.cat(outputs, dim=-1)


def _gated(mlp: GatedMlp, x: Tensor) -> Tensor:
    return mlp.fc3(mlp.fc1(x).clamp(0, 6) * mlp.fc2(x))


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)
