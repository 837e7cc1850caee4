"""ProxyCLIP (ECCV 2024): CLIP says what is there, another tower which patches belong together; no training.

The values of CLIP's last block are mixed by the likeness of a prior's patches: DINO as published, or any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ovrs.config.options import Options, option
from ovrs.heads.base import Head, HeadContext, register_head
from ovrs.heads.blocks.cost_volume import word_cosines
from ovrs.heads.blocks.proxy_attention import proxy_attention
from ovrs.heads.blocks.work import as_published
from ovrs.heads.quantities import Pass, Quantity
from ovrs.scores import ScoreRule
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec


@dataclass(frozen=True)
class ProxyClipOptions(Options):
    """``MODEL.PROXY_CLIP``; the defaults are the published ones."""

    beta: float = option(1.2, "patches less alike than this times the mean do not see each other", minimum=0)
    gamma: float = option(3.0, "how much more likeness counts", above=0)
    logit_scale: float = option(40.0, "factor of the cosines", above=0)


@register_head("PROXY_CLIP", ProxyClipOptions)
class ProxyClipHead(Head):
    """Cosines of mixed values and words, on the grid of the prior; every word is a row of its own."""

    needs_training = False
    extra_work = as_published

    def __init__(self, options: ProxyClipOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__()
        self.settings = options
        self.rule = ScoreRule("softmax", options.logit_scale, "max")

    def requests(self) -> dict[str, TowerRequest]:
        """Ask CLIP for the last block, not run yet, and the prior for its dense map."""
        return {"vlm": TowerRequest(dense="none", last_block=True), "prior": TowerRequest()}

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, Q, h, w] cosines for a prior's grid of h x w.

        All heads share the weights, rows of which sum to 1, so the values can be projected before they are enlarged
        and mixed.
        """
        block, proxy = features["vlm"].last_block, features["prior"].dense
        values = block.qkv()[2][:, :, 1:]
        values = block.close(values).transpose(1, 2).unflatten(2, block.grid)
        values = F.interpolate(values, size=proxy.shape[-2:], mode="bilinear", align_corners=False)
        mixed = proxy_attention(proxy, self.settings.beta, self.settings.gamma).to(values.dtype)
        tokens = block.joint(mixed @ values.flatten(2).transpose(1, 2))
        return word_cosines(tokens.transpose(1, 2).unflatten(2, proxy.shape[-2:]), text.per_word)

    def quantities(self) -> dict[str, Quantity]:
        """Return which patches the prior finds alike."""

        def weights(seen: Pass) -> Tensor:
            proxy, grid = seen.features["prior"].dense, seen.features["prior"].dense.shape[-2:]
            found = proxy_attention(proxy, self.settings.beta, self.settings.gamma)
            return found.unflatten(2, grid).unflatten(1, grid)

        return {"neighbours": Quantity("relations", "attention that the prior's features draw", weights)}
