"""CAT-Seg: Cost AggregaTion (CVPR 2024), the common ancestor of GSNet, RSKT-Seg and DR-Seg.

The cosine of every pixel and every class is a cost volume; an aggregator refines it over space (guided by the
image) and over classes (guided by the text), and a decoder guided by CLIP's own blocks restores detail.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ovrs.heads.base import HeadContext, register_head
from ovrs.heads.blocks.chunks import over_classes
from ovrs.heads.blocks.fusion import SingleCost
from ovrs.heads.cost_volume import CostVolumeHead, PromptOptions
from ovrs.heads.quantities import Quantity, output_of
from ovrs.structures import TextFeatures, TowerFeatures, TowerSpec


@register_head("CAT_SEG", PromptOptions)
class CATSegHead(CostVolumeHead):
    """Cost volume, aggregator and guided decoder; no prior."""

    def __init__(self, options: PromptOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__(options, towers, context)
        self.embed = SingleCost(self.prompts, options.hidden_dim)
        self.add_refinement(options, towers, context)

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        dense = features["vlm"].dense
        return self.compare(dense, dense, features, text)

    def compare(
        self, pixels: Tensor, guidance: Tensor, features: Mapping[str, TowerFeatures], text: TextFeatures
    ) -> Tensor:
        """Return the logits where [B, C, h, w] ``pixels`` are compared with the classes.

        ``guidance`` [B, C, h, w] guides the aggregator, and ``features`` the decoder.
        """
        chunk = self.chunk(guidance, text)
        cost = over_classes(lambda part: self.embed(pixels, part[0]), chunk, self.queries(text)[None])
        return self.refine(cost, guidance, features, text, chunk)

    def quantities(self) -> dict[str, Quantity]:
        """Return the cost volume and its embedding too."""
        return {
            "correlation": self.correlation(
                "cosines of CLIP's map and classes", lambda seen: seen.features["vlm"].dense
            ),
            "fused": output_of(self.embed, "class_features", "the embedded cost volume"),
            **super().quantities(),
        }
