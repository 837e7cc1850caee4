"""The fusions of two cost volumes and the uncertainty gate as formulas.

Weights are those of the modules under test; every class is treated alone.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.heads.blocks.fusion import CostFusion
from ovrs.heads.dr_seg.fusion import MultiScaleFusion, UncertaintyGate


def naive_cost_fusion(kind: str, fusion: CostFusion, cost: Tensor, second: Tensor | None) -> Tensor:
    """[B, T, R, h, w] and [B, T, S, h, w] -> [B, T, hidden, h, w]."""
    classes = range(cost.shape[1])
    return torch.stack(
        [_one_class(kind, fusion, cost[:, t], None if second is None else second[:, t]) for t in classes], dim=1
    )


def _one_class(kind: str, fusion: CostFusion, c: Tensor, r: Tensor | None) -> Tensor:
    if kind == "ori_only":
        return fusion.embed(c)
    if kind == "ref_only":
        return fusion.embed(r)
    if kind == "mean":
        maps = [*c.unbind(1), *r.unbind(1)]
        return fusion.embed((sum(maps) / len(maps))[:, None])
    if kind == "branch_mean":
        return fusion.embed((0.5 * sum(c.unbind(1)) / c.shape[1] + 0.5 * sum(r.unbind(1)) / r.shape[1])[:, None])
    if kind == "concat":
        return fusion.embed(torch.cat([c, r], dim=1))
    if kind == "add":
        return fusion.embed(c) + fusion.embed_second(r)
    if kind == "separate":
        a, b = torch.sigmoid(fusion.embed(c)), torch.sigmoid(fusion.embed_second(r))
        return torch.sigmoid(fusion.fuse(torch.cat([a, b], dim=1))) + a
    return naive_multi_scale(fusion, c, r)


def naive_multi_scale(fusion: MultiScaleFusion, c: Tensor, r: Tensor) -> Tensor:
    """UGAF behind its gate, for one class."""
    original, x = fusion.embed(c), fusion.embed_second(r)
    if fusion.activation is torch.sigmoid:
        original, x = original.sigmoid(), x.sigmoid()
    views = [
        F.conv2d(x, scale.weight, scale.bias, padding=scale.weight.shape[-1] // 2, groups=x.shape[1])
        for scale in fusion.scales
    ]
    refined = x + fusion.merge_scales(torch.cat(views, dim=1).clamp(min=0))
    fused = torch.cat([original, refined], dim=1)
    fused = F.conv2d(fused, fusion.fuse.weight, padding=fusion.fuse.weight.shape[-1] // 2)
    fused = F.group_norm(fused, 8, fusion.norm.weight, fusion.norm.bias)
    return fused.clamp(min=0) + original


def naive_gate(gate: UncertaintyGate, cost: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 12 and 13 for a cost volume [B, T, R, h, w], in float64: G and M, both [B, 1, h, w]."""
    classes = cost.shape[1]
    of_image = cost.double().detach().mean(dim=2)
    if classes == 1:
        uncertainty = torch.zeros_like(of_image)
    else:
        shares = (of_image / gate.tau - (of_image / gate.tau).amax(dim=1, keepdim=True)).exp()
        p = shares / shares.sum(dim=1, keepdim=True)
        entropy = -sum(p[:, t] * (p[:, t] + 1e-8).log() for t in range(classes))
        uncertainty = ((entropy / math.log(classes)) ** 2)[:, None]
    weight, bias = gate.psi.weight.flatten().double(), gate.psi.bias.double()
    return 1 / (1 + (-(weight * uncertainty + bias)).exp()), uncertainty
