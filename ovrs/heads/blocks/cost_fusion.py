"""Embedding two cost volumes of the same classes into cost maps.

Every fusion takes ``(cost, second)``: the CLIP's cost volume [B, T, R, h, w], its channels being rotations or
prompts, and another one, [B, T, S, h, w]. It returns [B, T, hidden, h, w], and no class sees another. The second is
GSNet's and RSKT-Seg's DINO cost, or DR-Seg's cost of the rectified features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.precision import full_precision

COST_FUSIONS = ("ori_only", "ref_only", "mean", "concat", "add", "separate", "ugaf")

_KERNEL = 7
_GROUPS = 8
_EPSILON = 1e-8  # inside the logarithm of the entropy


def embedding_conv(in_dim: int, out_dim: int) -> nn.Conv2d:
    """Return the 7x7 convolution with which the CAT-Seg family embeds cost volumes."""
    return nn.Conv2d(in_dim, out_dim, _KERNEL, padding=_KERNEL // 2)


class CostFusion(nn.Module):
    """A fusion over the flattened class axis.

    Args:
        channels: of the first cost volume; of both together where a subclass concatenates them; 1 for means.
        hidden: channels of the cost maps.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.embed = embedding_conv(channels, hidden)

    def forward(self, cost: Tensor, second: Tensor | None = None) -> Tensor:
        """[B, T, R, h, w] and [B, T, S, h, w] -> [B, T, hidden, h, w]."""
        folded = self.fuse_maps(cost.flatten(0, 1), second if second is None else second.flatten(0, 1))
        return folded.unflatten(0, cost.shape[:2])

    def fuse_maps(self, cost: Tensor, second: Tensor | None) -> Tensor:
        """The same on [N, channels, h, w]; here the first volume alone, without activation (CAT-Seg)."""
        return self.embed(cost)


class SecondOnly(CostFusion):
    """The second volume alone."""

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        return self.embed(second)


class MeanFusion(CostFusion):
    """One embedding of the mean over all maps of both volumes (RSKT-Seg's ``simple_mean``)."""

    def __init__(self, hidden: int) -> None:
        super().__init__(1, hidden)

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        return self.embed(torch.cat([cost, second], dim=1).mean(dim=1, keepdim=True))


class ConcatFusion(CostFusion):
    """One embedding of all maps as channels (RSKT-Seg's ``simple_concatenation``)."""

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        return self.embed(torch.cat([cost, second], dim=1))


class AddFusion(CostFusion):
    """The sum of two embeddings (our reading of DR-Seg's Table 2 without UGAF).

    Args:
        channels, second_channels: of the two volumes.
        hidden: channels of the cost maps.
    """

    def __init__(self, channels: int, second_channels: int, hidden: int) -> None:
        super().__init__(channels, hidden)
        self.embed_second = embedding_conv(second_channels, hidden)

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        return self.embed(cost) + self.embed_second(second)


class SeparateFusion(AddFusion):
    """Z_1 = sigmoid(conv M_1), Z_2 = sigmoid(conv M_2), Z = sigmoid(conv [Z_1 ; Z_2]) + Z_1, which lies in 0..2.

    GSNet's query-guided feature fusion (QGFF, Eq. 2-3) and RSKT-Seg's ``simple_separate``.
    """

    def __init__(self, channels: int, second_channels: int, hidden: int) -> None:
        super().__init__(channels, second_channels, hidden)
        self.fuse = embedding_conv(2 * hidden, hidden)

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        first = self.embed(cost).sigmoid()
        both = torch.cat([first, self.embed_second(second).sigmoid()], dim=1)
        return self.fuse(both).sigmoid() + first


class MultiScaleFusion(AddFusion):
    """The fusion behind DR-Seg's uncertainty gate (UGAF; dr_seg spec, section 5, steps 4 to 6).

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
        return F.relu(self.norm(self.fuse(torch.cat([original, refined], dim=1)))) + original


def build_cost_fusion(kind: str, channels: int, second_channels: int, hidden: int, **multi_scale: Any) -> CostFusion:
    """Build a fusion by its name in RSKT-Seg's and DR-Seg's ablations.

    Args:
        kind: ``ori_only``, ``ref_only``, ``mean``, ``concat``, ``add``, ``separate`` or ``ugaf``.
        channels: of the first volume.
        second_channels: of the second.
        hidden: channels of the cost maps.
        multi_scale: further options of ``ugaf``.
    """
    if kind == "ori_only":
        return CostFusion(channels, hidden)
    if kind == "ref_only":
        return SecondOnly(second_channels, hidden)
    if kind == "mean":
        return MeanFusion(hidden)
    if kind == "concat":
        return ConcatFusion(channels + second_channels, hidden)
    if kind == "add":
        return AddFusion(channels, second_channels, hidden)
    if kind == "separate":
        return SeparateFusion(channels, second_channels, hidden)
    if kind == "ugaf":
        return MultiScaleFusion(channels, second_channels, hidden, **multi_scale)
    raise ValueError(f"FUSION must be one of {', '.join(COST_FUSIONS)}, got {kind!r}.")


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
            return (entropy / torch.tensor(float(classes)).log().to(entropy)).square().clamp(0, 1)

    def forward(self, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gate G and the uncertainty M, both [B, 1, h, w]."""
        uncertainty = self.uncertainty(cost)
        return self.psi(uncertainty).sigmoid(), uncertainty
