"""CAT-Seg, RSKT-Seg and DR-Seg written down naively, out of the naive parts of the other references.

They take their weights from the heads under test.
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
from ovrs.structures import TextFeatures, TowerFeatures

Features = dict[str, TowerFeatures]


def naive_cat_seg(head: CATSegHead, features: Features, text: TextFeatures) -> Tensor:
    """One cost volume, Swin layers, guidance of CLIP alone."""
    mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
    dense = features["vlm"].dense
    x = naive_fusion(head.embed, [dense], mean[:, None] if head.mean_prompts else text.embeddings)
    x = naive_aggregation(head.aggregator, naive_layer, x, dense, mean)
    return naive_decoding(head.decoder, x, features)


def naive_rskt_seg(head: RSKTSegHead, features: Features, text: TextFeatures, fusion: str = "separate") -> Tensor:
    """RS-CMA, RS-Fusion, RS-Transfer; ``fusion`` is the head's, ``ori_only`` without the prior's cost."""
    mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
    second = None if fusion == "ori_only" else _cost(head.align(features["prior"].dense), mean)[:, :, None]
    x = naive_cost_fusion(fusion, head.fusion, _views(head, features, mean), second)
    x = naive_aggregation(head.aggregator, naive_efficient_layer, x, features["vlm"].dense, mean)
    return naive_decoding(head.decoder, x, features)


def naive_dr_seg(head: DRSegHead, features: Features, text: TextFeatures, fusion: str = "ugaf") -> Tensor:
    """SPSD, PDGR and UGAF; ``fusion`` is the head's."""
    mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
    original = _views(head, features, mean)
    embedded = original.mean(dim=2, keepdim=True) if head.mean_rotations else original
    refined = None
    if fusion != "ori_only":
        refined = _cost(naive_refined(head, features), mean)[:, :, None]
    if fusion == "ugaf":
        gate, _ = naive_gate(head.gate, original)
        refined = gate[:, None].to(refined) * refined
    x = naive_cost_fusion(fusion, head.fusion, embedded, refined)
    x = naive_aggregation(head.aggregator, naive_efficient_layer, x, features["vlm"].dense, mean)
    return naive_decoding(head.decoder, x, features)


def naive_refined(head: DRSegHead, features: Features) -> Tensor:
    """F_ref, channel by channel."""
    dense = features["vlm"].dense
    if head.rectify is None:
        return dense
    order = head.channels.order.tolist()
    structural = order[head.channels.semantic :]
    aligned = head.align(features["prior"].blocks[head.graph_block])
    rectified = naive_rectification(head.rectify, dense[:, structural], aligned)
    maps = [dense[:, channel] for channel in range(dense.shape[1])]
    for place, channel in enumerate(structural):
        maps[channel] = rectified[:, place]
    return torch.stack(maps, dim=1)


def _views(head: RSKTSegHead | DRSegHead, features: Features, text: Tensor) -> Tensor:
    """[B, T, R, h, w] (Eq. 10 of DR-Seg)."""
    vlm = features["vlm"]
    views = vlm.rotated.unbind(1) if head.use_rotation else [vlm.dense]
    return torch.stack([_cost(view, text) for view in views], dim=2)


def _cost(image: Tensor, text: Tensor) -> Tensor:
    """[B, C, h, w] and [T, C] -> [B, T, h, w]."""
    return naive_cost(image, text[:, None])[:, 0].unflatten(0, (len(image), len(text)))
