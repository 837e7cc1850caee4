"""From features and class embeddings to cost maps: GSNet's query-guided feature fusion and its ablations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.cost_fusion import SeparateFusion, embedding_conv
from ovrs.heads.blocks.cost_volume import cosine_cost


class SingleCost(nn.Module):
    """One cost volume, embedded without activation: CAT-Seg, and GSNet with one stream switched off.

    Args:
        prompts: input channels, the prompts per class.
        hidden: output channels.
    """

    def __init__(self, prompts: int, hidden: int) -> None:
        super().__init__()
        self.embed = embedding_conv(prompts, hidden)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """[B, C, h, w] features and [T, P, C] embeddings -> [B, T, hidden, h, w]."""
        cost = cosine_cost(image, text)
        return self.embed(cost.flatten(0, 1)).unflatten(0, cost.shape[:2])


class QueryGuidedFusion(nn.Module):
    """Two cost volumes, each with the query, fused: QGFF, Eq. 2-3 of the GSNet paper.

    Args:
        prompts: channels of each cost volume, the prompts per class.
        hidden: output channels.
    """

    def __init__(self, prompts: int, hidden: int) -> None:
        super().__init__()
        self.costs = SeparateFusion(prompts, prompts, hidden)

    def forward(self, vlm: Tensor, prior: Tensor, text: Tensor) -> Tensor:
        """Two [B, C, h, w] maps and [T, P, C] embeddings -> Z_F [B, T, hidden, h, w] in 0..2."""
        return self.costs(cosine_cost(vlm, text), cosine_cost(prior, text))


class ConcatenationFusion(nn.Module):
    """Both normalised maps and the class embedding, concatenated and convolved (Table 3, row E).

    The convolution is the sum of one over the image's channels, once per image, and one over the
    embedding, which is constant over the grid: a sum over the kernel's cells that lie inside the image.
    """

    def __init__(self, joint_dim: int, hidden: int) -> None:
        super().__init__()
        self.joint_dim = joint_dim
        self.embed = embedding_conv(3 * joint_dim, hidden)

    def forward(self, vlm: Tensor, prior: Tensor, text: Tensor) -> Tensor:
        """Two [B, C, h, w] maps and [T, P, C] embeddings (their mean is used) -> [B, T, hidden, h, w]."""
        image_weight, text_weight = self.embed.weight.split([2 * self.joint_dim, self.joint_dim], dim=1)
        both = torch.cat([F.normalize(vlm, dim=1), F.normalize(prior, dim=1)], dim=1)
        of_image = F.conv2d(both, image_weight, self.embed.bias, padding=self.embed.padding)

        per_cell = torch.einsum("ockl,tc->tokl", text_weight, text.mean(dim=1).to(text_weight.dtype))
        ones = vlm.new_ones(1, 1, *vlm.shape[-2:])
        of_text = F.conv2d(ones, per_cell.flatten(0, 1)[:, None], padding=self.embed.padding)
        return of_image[:, None] + of_text.unflatten(1, per_cell.shape[:2])


class FusedQuery(nn.Module):
    """Both maps merged by a 1x1 convolution before a single cost volume (Table 3, row F)."""

    def __init__(self, joint_dim: int, prompts: int, hidden: int) -> None:
        super().__init__()
        self.merge = nn.Conv2d(2 * joint_dim, joint_dim, kernel_size=1)
        self.cost = SingleCost(prompts, hidden)

    def forward(self, vlm: Tensor, prior: Tensor, text: Tensor) -> Tensor:
        """Two [B, C, h, w] maps and [T, P, C] embeddings -> [B, T, hidden, h, w]."""
        return self.cost(self.merge(torch.cat([vlm, prior], dim=1)), text)
