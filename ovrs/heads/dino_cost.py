"""CAT-Seg's aggregator over the cosines of DINOv3's patches and words: the shape of CAFe-DINO (arXiv 2605.03175).

The image tower is any prior, the text tower that of any vision-language model, whose own image tower does nothing here.
CAFe-DINO takes dino.txt, a text tower that was aligned with DINOv3 before. What its file holds is not known here, so
a layer that is learned with the head brings patches to the words. Neither are AnyUp, which enlarges CAFe-DINO's result
(here it is CAT-Seg's decoder, guided by blocks of the prior), and the training of the prior's last two blocks alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import Tensor, nn

from ovrs.config.options import option
from ovrs.errors import ConfigError
from ovrs.heads.base import HeadContext, blocks_of, needed, register_head
from ovrs.heads.blocks.decoder import Guide
from ovrs.heads.cat_seg import CATSegHead
from ovrs.heads.cost_volume import CostVolumeOptions, PromptOptions
from ovrs.heads.quantities import Quantity
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec


@dataclass(frozen=True)
class DinoCostOptions(PromptOptions):
    """``MODEL.DINO_COST``; layers as in CAFe-DINO."""

    num_layers: int = option(6, "layers of the aggregator", minimum=0)
    alignment: Literal["learned", "none"] = option(
        "learned", "how patches come to the joint space: a linear layer, or not at all (towers of one width)"
    )
    use_vlm_taps: bool = option(False, "always off: the vision-language model's image tower is not used")
    use_prior_taps: bool = option(True, "decoder guidance from blocks of the prior")
    prior_blocks: tuple[int, ...] = option((), "those blocks, one per decoder level; empty for 1/3, 2/3 of the depth")

    def check(self, key: str) -> None:  # noqa: D102
        super().check(key)
        if self.use_vlm_taps:
            raise ConfigError(f"{key}.USE_VLM_TAPS is on, but this head reads the prior alone: use USE_PRIOR_TAPS.")


@register_head("DINO_COST", DinoCostOptions)
class DinoCostHead(CATSegHead):
    """Cost volume, aggregator and guided decoder on the grid of the prior."""

    def __init__(self, options: DinoCostOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__(options, towers, context)
        width, joint = needed(towers, "prior", "MODEL.SEM_SEG_HEAD.NAME DinoCostHead").width, towers["vlm"].joint_dim
        if options.alignment == "none" and width != joint:
            raise ConfigError(
                f"{self.key}.ALIGNMENT is 'none', but patches are {width} wide and words {joint}: set it to 'learned'."
            )
        self.align = nn.Conv2d(width, joint, 1) if options.alignment == "learned" else nn.Identity()

    def _guide(self, name: str, options: CostVolumeOptions, towers: Mapping[str, TowerSpec]) -> Guide:
        tower = needed(towers, name, f"{self.key}.USE_PRIOR_TAPS")
        blocks = blocks_of(tower, options.prior_blocks, len(options.decoder_dims), f"{self.key}.PRIOR_BLOCKS")
        return Guide(tower.width, blocks, Fraction(1))  # the cost volume is on its own grid

    def requests(self) -> dict[str, TowerRequest]:
        """Ask the prior for its last map and the blocks that guide the decoder; nothing of the other image tower."""
        return {
            "vlm": TowerRequest(dense="none"),
            "prior": TowerRequest(self.decoder.blocks.get("prior", ()), dense="final_norm"),
        }

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a prior's grid of h x w (two decoder levels)."""
        pixels = self.align(features["prior"].dense)
        return self.compare(pixels, pixels, features, text)

    def quantities(self) -> dict[str, Quantity]:
        """Return what CAT-Seg has to show, of the prior's patches."""
        return {
            **super().quantities(),
            "correlation": self.correlation(
                "cosines of the prior's aligned map and classes", lambda seen: self.align(seen.features["prior"].dense)
            ),
        }
