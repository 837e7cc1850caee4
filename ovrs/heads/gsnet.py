"""GSNet: Generalist and Specialist Network (AAAI 2025).

A vision-language model (generalist, subscript G) and a remote-sensing DINO (specialist, S) each give a
cost volume per class; query-guided fusion (QGFF) merges them, CAT-Seg's aggregator refines the
result over space and classes, and a decoder with taps from both towers (RIPD) restores detail. Where paper
and official code differ, the code is followed, since the published numbers come from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.config.options import option
from ovrs.errors import ConfigError
from ovrs.heads.base import HeadContext, register_head
from ovrs.heads.blocks.chunks import over_classes
from ovrs.heads.blocks.cost_volume import cosine_cost
from ovrs.heads.blocks.fusion import SeparateFusion, SingleCost, embedding_conv
from ovrs.heads.cost_volume import CostVolumeHead, PromptOptions
from ovrs.heads.quantities import Quantity, output_of
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec


@dataclass(frozen=True)
class GSNetOptions(PromptOptions):
    """The ablations of the paper's Tables 3 and 6 are values of these."""

    use_vlm_cost: bool = option(True, "cost volume from the VLM's dense map (Table 3: off is RSIB only)")
    use_prior_cost: bool = option(True, "cost volume from the prior (Table 3: off is CLIP only)")
    fusion: Literal["query_guided", "concatenation", "fused_query"] = option(
        "query_guided", "of both costs (Table 3, rows D to F)"
    )
    use_prior_taps: bool = option(True, "decoder guidance from blocks of the prior (Table 3, rows G to I)")
    prior_blocks: tuple[int, ...] = option((), "those blocks, as VLM_BLOCKS")

    def check(self, key: str) -> None:  # noqa: D102
        super().check(key)
        if not (self.use_vlm_cost or self.use_prior_cost):
            raise ConfigError(f"{key}.USE_VLM_COST and USE_PRIOR_COST are both off; at least one cost is needed.")


@register_head("GSNET", GSNetOptions)
class GSNetHead(CostVolumeHead):
    """Query-guided fusion, aggregator and residual information preservation decoder."""

    def __init__(self, options: GSNetOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__(options, towers, context)
        self.use_vlm_cost, self.use_prior_cost = options.use_vlm_cost, options.use_prior_cost
        joint, hidden = towers["vlm"].joint_dim, options.hidden_dim
        if options.use_prior_cost:
            self.align = self.prior_to_joint(towers, "USE_PRIOR_COST")
        if not (options.use_vlm_cost and options.use_prior_cost):
            self.fusion = SingleCost(self.prompts, hidden)
        elif options.fusion == "query_guided":
            self.fusion = QueryGuidedFusion(self.prompts, hidden)
        elif options.fusion == "concatenation":
            self.fusion = ConcatenationFusion(joint, hidden)
        else:
            self.fusion = FusedQuery(joint, self.prompts, hidden)
        self.add_refinement(options, towers, context)

    def requests(self) -> dict[str, TowerRequest]:
        """Ask for the blocks that guide, and for the dense maps that a cost volume is made of."""
        wanted = super().requests()
        if self.use_prior_cost:
            wanted["prior"] = replace(wanted.get("prior", TowerRequest()), dense="final_norm")
        if not self.use_vlm_cost:
            vlm = replace(wanted.pop("vlm"), dense="none")
            wanted |= {"vlm": vlm} if vlm.blocks else {}
        return wanted

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        # E_G and E_S in the joint space; the class query is compared with each (QGFF).
        streams = [features["vlm"].dense] if self.use_vlm_cost else []
        if self.use_prior_cost:
            streams.append(self.align(features["prior"].dense))
        chunk = self.chunk(streams[0], text)
        fused = over_classes(lambda part: self.fusion(*streams, part[0]), chunk, self.queries(text)[None])
        # The aggregator, and RIPD.
        return self.refine(fused, streams[0], features, text, chunk)

    def quantities(self) -> dict[str, Quantity]:
        """Return both streams and what fusion makes of them too."""
        shown = {}
        if self.use_vlm_cost:
            shown["correlation"] = self.correlation(
                "cosines of the generalist's map E_G and classes", lambda seen: seen.features["vlm"].dense
            )
        if self.use_prior_cost:
            shown["prior_correlation"] = self.correlation(
                "cosines of the specialist's map E_S and classes",
                lambda seen: self.align(seen.features["prior"].dense),
            )
        return {
            **shown,
            "fused": output_of(self.fusion, "class_features", "Z_F, after the fusion"),
            **super().quantities(),
        }


class QueryGuidedFusion(nn.Module):
    """Two cost volumes, each with the query, fused: QGFF, Eq. 2-3.

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
