"""Segmentation by CLIP alone, without training: the attention of its last block is replaced.

One head for MaskCLIP (ECCV 2022), SCLIP (ECCV 2024), ClearCLIP (ECCV 2024), NACLIP (WACV 2025), SegEarth-OV (CVPR
2025) and the tower of ConInfer; ``configs/training_free`` has a file for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ovrs.config.options import Options, option
from ovrs.errors import ConfigError
from ovrs.heads.base import Head, HeadContext, register_head
from ovrs.heads.blocks.clip_attention import Attention, attend, class_bias
from ovrs.heads.blocks.cost_volume import word_cosines
from ovrs.heads.blocks.simfeatup import SimFeatUp, load_simfeatup
from ovrs.heads.blocks.work import as_published
from ovrs.heads.quantities import Pass, Quantity, output_of
from ovrs.scores import ScoreRule
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec


@dataclass(frozen=True)
class ClipAttentionOptions(Options):
    """``MODEL.CLIP_ATTENTION``; the defaults are SegEarth-OV without its upsampler."""

    attention: Attention = option("segearth", "who looks at whom in the last block")
    closing: Literal["bare", "block"] = option("bare", "with the block's residuals and MLP (block) or without (bare)")
    sigma: float = option(5.0, "naclip: standard deviation of the Gaussian in patches", above=0)
    earlier_blocks: tuple[int, ...] = option(
        (), "ConInfer: blocks (0-based) whose own attention is mixed in", minimum=0
    )
    earlier_share: float = option(0.6, "ConInfer: their share", minimum=0, maximum=1)
    class_bias: float = option(-0.3, "how much the whole image's similarity to a word counts; 0 for nothing")
    upsampler: Literal["none", "jbu_one", "jbu_stack"] = option("none", "SimFeatUp: enlarges features sixteenfold")
    upsampler_weights: str = option(
        "", "file or catalogue name of the upsampler's weights; '' for random ones", path=True
    )
    logit_scale: float = option(50.0, "factor of the cosines", above=0)

    def check(self, key: str) -> None:
        """Refuse weights without a part that they belong to."""
        if self.upsampler_weights and self.upsampler == "none":
            raise ConfigError(f"{key}.UPSAMPLER_WEIGHTS is set, but {key}.UPSAMPLER is 'none': set it, or clear this.")


@register_head("CLIP_ATTENTION", ClipAttentionOptions)
class ClipAttentionHead(Head):
    """Cosines of patches and words; every word is a row of its own."""

    needs_training = False
    extra_work = as_published

    def __init__(self, options: ClipAttentionOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__()
        self.settings = options
        self.rule = ScoreRule("softmax", options.logit_scale, "max")
        self.upsampler = None
        if options.upsampler != "none":
            self.upsampler = SimFeatUp(towers["vlm"].joint_dim, options.upsampler).requires_grad_(False)
            if not context.checkpoint:
                load_simfeatup(self.upsampler, options.upsampler_weights, "MODEL.CLIP_ATTENTION.UPSAMPLER_WEIGHTS")

    def requests(self) -> dict[str, TowerRequest]:
        """Ask for the last block, not run yet, and for the pixels that guide the upsampler."""
        earlier, pixels = self.settings.earlier_blocks, self.upsampler is not None
        return {"vlm": TowerRequest(dense="none", last_block=True, attention=earlier, pixels=pixels)}

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, Q, h, w] cosines; on a grid sixteen times as fine if there is an upsampler."""
        vlm, words = features["vlm"], text.per_word
        block = vlm.last_block
        tokens = block.joint(block.close(self._attended(vlm), residual=self.settings.closing == "block"))
        dense = tokens[:, 1:].transpose(1, 2).unflatten(2, block.grid)
        if self.upsampler is None:
            cosines = word_cosines(dense, words)
        else:  # an image at a time: 100 MB of features each
            pairs = zip(dense.split(1), vlm.pixels.split(1), strict=True)
            cosines = torch.cat([word_cosines(self.upsampler(one, image), words) for one, image in pairs])
        return class_bias(cosines, tokens[:, 0], words, self.settings.class_bias)

    def _attended(self, vlm: TowerFeatures, values: Tensor | None = None) -> Tensor:
        """Return the values of the last block, or others, as the method weighs them, [B, heads, 1 + h * w, d]."""
        settings, block = self.settings, vlm.last_block
        earlier = [vlm.attention[index] for index in settings.earlier_blocks]
        return attend(
            settings.attention, *block.qkv(), block.grid, settings.sigma, earlier, settings.earlier_share, values
        )

    def quantities(self) -> dict[str, Quantity]:
        """Return who looks at whom in the last block, and the features that the upsampler gets and gives."""

        def attention(seen: Pass) -> Tensor:
            block = seen.features["vlm"].last_block
            every = torch.eye(block.input.shape[1], dtype=block.input.dtype, device=block.input.device)
            weights = self._attended(seen.features["vlm"], every.expand(*block.qkv()[0].shape[:2], -1, -1))
            return weights.mean(dim=1)[:, 1:, 1:].unflatten(2, block.grid).unflatten(1, block.grid)

        shown = {
            "attention": Quantity("relations", "who looks at whom in the last block, mean of its heads", attention)
        }
        if self.upsampler is not None:
            part = (self.upsampler,)
            shown["coarse"] = Quantity("features", "before SimFeatUp", lambda seen: seen.inputs(*part)[0], part)
            shown["upsampled"] = output_of(self.upsampler, "features", "after SimFeatUp")
        return shown
