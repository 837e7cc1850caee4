"""HG-RSOVSSeg's head written down naively, as published: every map repeated for every class, nothing factored.

It takes its weights from the head under test, so gradients can be compared too. Maps are [B * T, C, H, W] with the
classes as the fast axis.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.heads import HGRSOVSSegHead
from ovrs.heads.blocks.decoder import GuidedUpsampling
from ovrs.heads.blocks.text_attention import TextAttention
from ovrs.structures import TextFeatures, TowerFeatures


def naive_head(head: HGRSOVSSegHead, features: dict[str, TowerFeatures], text: TextFeatures) -> Tensor:
    """Return the [B, T, h, w] logits of a head with any aggregation, with or without TAM and HGU."""
    mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
    image = features["vlm"]
    images, classes = len(image.dense), len(mean)
    x = naive_aggregation(head, image.dense, mean, text.embeddings)
    deepest_first = sorted(image.blocks, reverse=True)
    for level, stage in enumerate(head.decoder):
        features = head.guidance[level](image.blocks[deepest_first[level]])
        if head.attention is None:
            guidance = features.repeat_interleave(classes, dim=0)
        else:
            guidance = naive_attention(head.attention[level], features, mean)
        x = naive_stage(stage, x, guidance)
    return head.predictor(x).reshape(images, classes, *x.shape[-2:])


def naive_aggregation(head: HGRSOVSSegHead, dense: Tensor, mean: Tensor, prompts: Tensor) -> Tensor:
    unit = F.normalize(dense, dim=1)
    product = torch.stack([torch.stack([v * t[:, None, None] for t in mean]) for v in unit]).flatten(0, 1)
    kind = type(head.aggregation).__name__
    if kind == "ProductAggregation":
        return product
    if kind == "SimilarityAggregation":
        return head.aggregation.widen(product.sum(dim=1, keepdim=True))
    cosines = torch.stack([torch.stack([(v[None] * p[:, :, None, None]).sum(dim=1) for p in prompts]) for v in unit])
    return head.aggregation.embed(cosines.flatten(0, 1))


def naive_attention(tam: TextAttention, features: Tensor, text: Tensor) -> Tensor:
    """[B, Co, H, W] features and [T, C] text -> HG [B * T, Co, H, W]."""
    (images, channels, *grid), classes = features.shape, len(text)
    pixels = features.flatten(2)
    words = text.T[None].expand(images, -1, -1)
    query, key, value = F.instance_norm(tam.query(pixels), eps=1e-5), tam.key(words), tam.value(words)
    attention = torch.einsum("bkl,bkn->bnl", query, key).softmax(dim=1)
    weighted = torch.einsum("bnl,bcn->bncl", attention, value).flatten(0, 1)
    hidden = F.instance_norm(tam.mix(weighted), eps=1e-5)
    visual = F.gelu(tam.visual(pixels)).repeat_interleave(classes, dim=0)
    return F.gelu(tam.fuse(visual * hidden)).reshape(images * classes, channels, *grid)


def naive_stage(stage: GuidedUpsampling, x: Tensor, guidance: Tensor) -> Tensor:
    x = stage.conv1(torch.cat([stage.up(x), guidance], dim=1))
    x = F.relu(stage.norm1(x))
    return F.relu(stage.norm2(stage.conv2(x)))
