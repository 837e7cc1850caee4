"""CAT-Seg, RSKT-Seg and DR-Seg written down naively, out of the naive parts of the other references.

They take their weights from the heads under test. Section numbers are those of the dr_seg specification.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from cost_fusion_reference import naive_cost_fusion, naive_gate
from efficient_reference import naive_efficient_layer
from graph_reference import naive_rectification
from gsnet_reference import naive_aggregation, naive_cost, naive_decoding, naive_fusion, naive_layer
from torch import Tensor

from ovrs.heads import CATSegHead, DRSegHead, RSKTSegHead
from ovrs.structures import ImageFeatures, PriorFeatures, TextFeatures


def naive_cat_seg(head: CATSegHead, image: ImageFeatures, text: TextFeatures, prior: None) -> Tensor:
    """One cost volume, Swin layers, guidance of CLIP alone."""
    mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
    x = naive_fusion(head.embed, [image.dense], mean[:, None] if head.mean_prompts else text.embeddings)
    x = naive_aggregation(head.aggregator, naive_layer, x, image.dense, mean)
    return naive_decoding(head.decoder, x, image, prior)


def naive_rskt_seg(
    head: RSKTSegHead, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None, fusion: str = "separate"
) -> Tensor:
    """Section 13.1; ``fusion`` is the head's, ``ori_only`` without the prior's cost."""
    mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
    second = None if fusion == "ori_only" else _cost(head.align(prior.dense), mean)[:, :, None]
    x = naive_cost_fusion(fusion, head.fusion, _views(head, image, mean), second)
    x = naive_aggregation(head.aggregator, naive_efficient_layer, x, image.dense, mean)
    return naive_decoding(head.decoder, x, image, prior)


def naive_dr_seg(
    head: DRSegHead, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None, fusion: str = "ugaf"
) -> Tensor:
    """Sections 3 to 6; ``fusion`` is the head's."""
    mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
    original = _views(head, image, mean)
    embedded = original.mean(dim=2, keepdim=True) if head.mean_rotations else original
    refined = None
    if fusion != "ori_only":
        refined = _cost(naive_refined(head, image.dense, prior), mean)[:, :, None]
    if fusion == "ugaf":
        gate, _ = naive_gate(head.gate, original)
        refined = gate[:, None].to(refined) * refined
    x = naive_cost_fusion(fusion, head.fusion, embedded, refined)
    x = naive_aggregation(head.aggregator, naive_efficient_layer, x, image.dense, mean)
    return naive_decoding(head.decoder, x, image, prior)


def naive_refined(head: DRSegHead, dense: Tensor, prior: PriorFeatures | None) -> Tensor:
    """Sections 2.3 and 3: F_ref, channel by channel."""
    if head.rectify is None:
        return dense
    order = head.channels.order.tolist()
    structural = order[head.channels.semantic :]
    aligned = head.align(prior.blocks[head.graph_block])
    rectified = naive_rectification(head.rectify, dense[:, structural], aligned)
    maps = [dense[:, channel] for channel in range(dense.shape[1])]
    for place, channel in enumerate(structural):
        maps[channel] = rectified[:, place]
    return torch.stack(maps, dim=1)


def _views(head: RSKTSegHead | DRSegHead, image: ImageFeatures, text: Tensor) -> Tensor:
    """Section 4: [B, T, R, h, w]."""
    views = image.rotated.unbind(1) if head.use_rotation else [image.dense]
    return torch.stack([_cost(view, text) for view in views], dim=2)


def _cost(image: Tensor, text: Tensor) -> Tensor:
    """[B, C, h, w] and [T, C] -> [B, T, h, w]."""
    return naive_cost(image, text[:, None])[:, 0].unflatten(0, (len(image), len(text)))
