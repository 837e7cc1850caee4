"""Uncertainty-guided adaptive fusion of the original and the refined cost (UGAF of DR-Seg, Eq. 12 and 13)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.config.options import Options, option
from ovrs.errors import ConfigError
from ovrs.heads.blocks.fusion import AddFusion
from ovrs.heads.blocks.precision import channels_last, full_precision

_GROUPS = 8
_EPSILON = 1e-8  # inside the logarithm of the entropy


@dataclass(frozen=True)
class FusionOptions(Options):
    """How the original and the refined cost volume are joined (Table 4)."""

    type: Literal["ugaf", "mean", "branch_mean", "concat", "separate", "add", "ori_only", "ref_only"] = option(
        "ugaf",
        "gated by uncertainty, or another fusion: of the mean, all maps count alike (mean) or each branch one half",
    )
    unc_tau: float = option(0.01, "temperature of the softmax behind the uncertainty", above=0)
    unc_detach: bool = option(True, "no gradient through the uncertainty")
    embed_act: Literal["none", "sigmoid"] = option("none", "activation behind both embeddings of ugaf")
    ms_kernels: tuple[int, ...] = option((3, 5, 7), "sides of ugaf's depthwise kernels, odd")
    head_kernel: int = option(3, "side of ugaf's fusing kernel, odd")
    ori_agg: Literal["stack", "mean"] = option("stack", "rotations as channels of the embedding, or their mean")

    def check(self, key: str) -> None:  # noqa: D102
        for name, sides in (("MS_KERNELS", self.ms_kernels), ("HEAD_KERNEL", (self.head_kernel,))):
            if not sides or any(side < 1 or side % 2 == 0 for side in sides):
                raise ConfigError(f"{key}.{name} must be odd and above 0, got {list(sides)}.")


class MultiScaleFusion(AddFusion):
    """The fusion behind DR-Seg's uncertainty gate (UGAF).

    The second volume, already gated, is embedded and seen at several scales by depthwise convolutions; the result
    corrects the embedding of the first: E = ReLU(GN(conv [E_ori ; E_ref])) + E_ori.

    Args:
        channels, second_channels: of the two volumes.
        hidden: channels of the cost maps, a multiple of 8.
        kernels: sides of the depthwise kernels, odd.
        head_kernel: side of the fusing kernel, odd.
        activation: behind both embeddings.
    """

    def __init__(
        self,
        channels: int,
        second_channels: int,
        hidden: int,
        kernels: Sequence[int] = (3, 5, 7),
        head_kernel: int = 3,
        activation: Literal["none", "sigmoid"] = "none",
    ) -> None:
        super().__init__(channels, second_channels, hidden)
        self.activation = torch.sigmoid if activation == "sigmoid" else lambda x: x
        self.scales = nn.ModuleList(
            nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden) for kernel in kernels
        )
        self.merge_scales = nn.Conv2d(len(kernels) * hidden, hidden, 1)
        self.fuse = nn.Conv2d(2 * hidden, hidden, head_kernel, padding=head_kernel // 2, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, hidden)

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        original = self.activation(self.embed(cost))
        refined = self.activation(self.embed_second(second))
        scales = torch.cat([scale(refined) for scale in self.scales], dim=1)
        refined = refined + self.merge_scales(F.relu(scales))
        both = channels_last(torch.cat([original, refined], dim=1))
        return F.relu(self.norm(self.fuse(both))) + original


class UncertaintyGate(nn.Module):
    """How far to trust the second volume at each position (Eq. 12 of DR-Seg): the more, the less sure the first is.

    M = (entropy over the classes / log T)^2, of the softmax of the rotations' mean cost; G = sigmoid(w M + b).
    All classes share the gate, so it serves any vocabulary.

    Args:
        tau: temperature of the softmax. At 1 cosines give a nearly uniform distribution and M is constant.
        detach: whether no gradient passes through M.
    """

    def __init__(self, tau: float = 0.01, detach: bool = True) -> None:
        super().__init__()
        self.tau, self.detach = tau, detach
        # Starts at w = 1, b = 0: uncertainty opens the gate, where random weights might close it.
        self.psi = nn.Conv2d(1, 1, kernel_size=1)
        nn.init.ones_(self.psi.weight)
        nn.init.zeros_(self.psi.bias)

    def uncertainty(self, cost: Tensor) -> Tensor:
        """Return M [B, 1, h, w] in 0..1 for a cost volume [B, T, R, h, w]; 0 for a single class."""
        classes = cost.shape[1]
        if classes == 1:
            return cost.new_zeros(cost.shape[0], 1, *cost.shape[-2:])
        # At least fp32: cosines are divided by a small temperature.
        with full_precision(cost):
            mean = (cost.detach() if self.detach else cost).mean(dim=2)
            probability = (mean / self.tau).softmax(dim=1)
            entropy = -(probability * (probability + _EPSILON).log()).sum(dim=1, keepdim=True)
            return (entropy / math.log(classes)).square().clamp(0, 1)

    def forward(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gate G and the uncertainty M, both [B, 1, h, w]."""
        uncertainty = self.uncertainty(cost)
        return self.psi(uncertainty).sigmoid(), uncertainty
