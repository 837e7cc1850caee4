"""RSKT-Seg: Remote Sensing Knowledge Transfer (AAAI 2026).

RS-CMA compares the image under four quarter turns, and the features of a remote-sensing DINO, with the classes;
RS-Fusion aggregates the cost maps over space and classes with an efficient transformer; RS-Transfer guides the
decoder with blocks of CLIP, of a remote-sensing CLIP (the companion) and of the DINO. The official code is
followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from ovrs.config.options import option
from ovrs.heads.base import HeadContext, register_head
from ovrs.heads.blocks.chunks import over_classes
from ovrs.heads.blocks.cost_volume import cosine_cost
from ovrs.heads.blocks.fusion import COST_FUSIONS
from ovrs.heads.cost_volume import RotationHead, RotationOptions
from ovrs.heads.quantities import Quantity, output_of
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec


@dataclass(frozen=True)
class RSKTSegOptions(RotationOptions):
    """The ablations of the paper are values of these."""

    use_prior_cost: bool = option(True, "cost volume from the prior")
    fusion: Literal["separate", "mean", "concat"] = option("separate", "of both costs")


@register_head("RSKT_SEG", RSKTSegOptions)
class RSKTSegHead(RotationHead):
    """Multi-direction cost maps, efficient aggregation and a decoder with up to three sources of guidance."""

    def __init__(self, options: RSKTSegOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__(options, towers, context)
        self.align = self.prior_to_joint(towers, "USE_PRIOR_COST") if options.use_prior_cost else None
        kind = options.fusion if options.use_prior_cost else "ori_only"
        self.fusion = COST_FUSIONS[kind](self.rotations, 1, options.hidden_dim)
        self.add_refinement(options, towers, context)

    def requests(self) -> dict[str, TowerRequest]:
        """Ask for rotations, for the blocks that guide, and for the prior's map where a cost needs it."""
        wanted = super().requests()
        if self.align is not None:
            wanted["prior"] = replace(wanted.get("prior", TowerRequest()), dense="final_norm")
        return wanted

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        # RS-CMA.
        costs = [self.rotated_cost(features, text)]
        if self.align is not None:
            costs.append(cosine_cost(self.align(features["prior"].dense), text.mean[:, None]))
        dense, chunk = features["vlm"].dense, self.chunk(features["vlm"].dense, text)
        maps = over_classes(self.fusion, chunk, *costs)
        # RS-Fusion and RS-Transfer.
        return self.refine(maps, dense, features, text, chunk)

    def quantities(self) -> dict[str, Quantity]:
        """Return the prior's cost volume and the fused cost maps too."""
        shown = super().quantities()
        if self.align is not None:
            shown["prior_correlation"] = self.correlation(
                "cosines of the prior's map and classes", lambda seen: self.align(seen.features["prior"].dense)
            )
        return {**shown, "fused": output_of(self.fusion, "class_features", "both cost volumes after their fusion")}
