"""Embedding cost volumes of the same classes into cost maps.

Every fusion takes ``(cost, second)``: the CLIP's cost volume [B, T, R, h, w], its channels being rotations or
prompts, and another one, [B, T, S, h, w]. It returns [B, T, hidden, h, w], and no class sees another. The second is
GSNet's and RSKT-Seg's DINO cost, or DR-Seg's cost of the rectified features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ovrs.heads.blocks.cost_volume import cosine_cost
from ovrs.heads.blocks.precision import channels_last

_KERNEL = 7


def embedding_conv(in_dim: int, out_dim: int) -> nn.Conv2d:
    """Return the 7x7 convolution with which the CAT-Seg family embeds cost volumes."""
    return nn.Conv2d(in_dim, out_dim, _KERNEL, padding=_KERNEL // 2)


class CostFusion(nn.Module):
    """A fusion over the flattened class axis; here of the first volume alone, without activation (CAT-Seg).

    Args:
        channels, second_channels: of the two volumes.
        hidden: channels of the cost maps.
    """

    def __init__(self, channels: int, second_channels: int, hidden: int) -> None:
        super().__init__()
        self.embed = embedding_conv(self.embedded(channels, second_channels), hidden)

    @staticmethod
    def embedded(channels: int, second_channels: int) -> int:
        """Return how many maps ``embed`` sees."""
        return channels

    def forward(self, cost: Tensor, second: Tensor | None = None) -> Tensor:
        """[B, T, R, h, w] and [B, T, S, h, w] -> [B, T, hidden, h, w]."""
        folded = self.fuse_maps(cost.flatten(0, 1), second if second is None else second.flatten(0, 1))
        return folded.unflatten(0, cost.shape[:2])

    def fuse_maps(self, cost: Tensor, second: Tensor | None) -> Tensor:
        """The same on [N, channels, h, w]."""
        return self.embed(cost)


class SecondOnly(CostFusion):
    """The second volume alone."""

    embedded = staticmethod(lambda channels, second_channels: second_channels)

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        return self.embed(second)


class MeanFusion(CostFusion):
    """One embedding of the mean over all maps of both volumes (RSKT-Seg's ``simple_mean``)."""

    embedded = staticmethod(lambda channels, second_channels: 1)

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        return self.embed(torch.cat([cost, second], dim=1).mean(dim=1, keepdim=True))


class BranchMeanFusion(MeanFusion):
    """One embedding of the mean of both volumes' means: each counts for one half, however many maps it has."""

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        return self.embed((cost.mean(dim=1, keepdim=True) + second.mean(dim=1, keepdim=True)) / 2)


class ConcatFusion(CostFusion):
    """One embedding of all maps as channels (RSKT-Seg's ``simple_concatenation``)."""

    embedded = staticmethod(lambda channels, second_channels: channels + second_channels)

    def fuse_maps(self, cost: Tensor, second: Tensor) -> Tensor:  # noqa: D102
        return self.embed(torch.cat([cost, second], dim=1))


class AddFusion(CostFusion):
    """The sum of two embeddings (our reading of DR-Seg's Table 2 without UGAF)."""

    def __init__(self, channels: int, second_channels: int, hidden: int) -> None:
        super().__init__(channels, second_channels, hidden)
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
        return self.fuse(channels_last(both)).sigmoid() + first


class SingleCost(CostFusion):
    """One cost volume from features and embeddings, embedded without activation.

    Args:
        prompts: input channels, the prompts per class.
        hidden: output channels.
    """

    def __init__(self, prompts: int, hidden: int) -> None:
        super().__init__(prompts, 0, hidden)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """[B, C, h, w] features and [T, P, C] embeddings -> [B, T, hidden, h, w]."""
        return super().forward(cosine_cost(image, text))


# By their names in RSKT-Seg's and DR-Seg's ablations.
COST_FUSIONS: dict[str, type[CostFusion]] = {
    "ori_only": CostFusion,
    "ref_only": SecondOnly,
    "mean": MeanFusion,
    "branch_mean": BranchMeanFusion,
    "concat": ConcatFusion,
    "add": AddFusion,
    "separate": SeparateFusion,
}
