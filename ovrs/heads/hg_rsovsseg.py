"""HG-RSOVSSeg: hierarchical guidance for open-vocabulary segmentation (Remote Sensing 2026, 18(2), 213).

A frozen vision-language model delivers a dense map in the joint space and the outputs of some middle blocks. The
dense map is multiplied with every class embedding (feature aggregation, FA); a decoder then doubles the
resolution level by level (hierarchical guided upsampling, HGU), each level guided by a middle block's
output as the class at hand sees it (text attention module, TAM). Where paper and official code differ, the code is
followed, since the published numbers come from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ovrs.heads.base import Head
from ovrs.heads.blocks.chunks import classes_per_pass
from ovrs.heads.blocks.decoder import GROUP_WIDTH, GuidedUpsampling
from ovrs.heads.blocks.feature_aggregation import ProductAggregation, SimilarityAggregation
from ovrs.heads.blocks.fusion import SingleCost
from ovrs.heads.blocks.guided_decoder import tapped_blocks
from ovrs.heads.blocks.text_attention import TextAttention
from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec
from ovrs.vocabulary import Vocabulary

_AGGREGATIONS = ("product", "similarity", "cost")
_KEY = "MODEL.HG_RSOVSSEG"
# Decoded maps (images x classes) per pass at inference: 10 of them take about 0.25 GB with ViT-L/14 at 512.
_MAPS_PER_PASS = 10


@SEM_SEG_HEADS_REGISTRY.register()
class HGRSOVSSegHead(Head):
    """Feature aggregation, text attention and hierarchical guided upsampling.

    Level 1 is the first to run: it reads the deepest of the guidance blocks and doubles the grid of the dense map;
    level i reads the i-th deepest and works at 2^i times that grid.

    Args:
        vlm: shape of the vision-language model.
        guidance_blocks: VLM blocks, from shallow to deep (7, 15: level 1 reads block 15); empty spreads them evenly.
        guidance_channels: channels of the guidance and of the output of each level, from level 1 on, each a
            multiple of 16 and less than the one before (the first less than the joint width).
        key_channels: width in which text attention compares pixels and classes, Ck.
        aggregation: ``product``, or the ablations ``similarity`` and ``cost``.
        prompts: prompts per class; matters for ``cost`` alone.
        use_tam: whether the classes see the guidance through text attention; without it all see the same.
        use_hgu: whether the resolution is restored at all; without it the aggregated map is classified.
        dropout: share of whole channels (of one image and class) dropped before the last convolution.
        merge_first_level: whether level 1 computes with the merged convolution (see ``GuidedUpsampling``); the
            result is the same.
        class_chunk: classes per pass of aggregation and decoder at inference; 0 chooses.

    Raises:
        ValueError: options that do not fit each other or the tower; the message names the key.
    """

    @configurable
    def __init__(
        self,
        *,
        vlm: TowerSpec,
        guidance_blocks: Sequence[int] = (),
        guidance_channels: Sequence[int] = (128, 64),
        key_channels: int = 512,
        aggregation: str = "product",
        prompts: int = 1,
        use_tam: bool = True,
        use_hgu: bool = True,
        dropout: float = 0.1,
        merge_first_level: bool = True,
        class_chunk: int = 0,
    ) -> None:
        super().__init__()
        _check(vlm, guidance_channels, aggregation, use_tam, use_hgu)
        channels = tuple(guidance_channels) if use_hgu else ()
        blocks = tapped_blocks(guidance_blocks, vlm.depth, len(guidance_channels), f"{_KEY}.GUIDANCE_BLOCKS")
        if list(blocks) != sorted(blocks):
            raise ValueError(
                f"{_KEY}.GUIDANCE_BLOCKS go from shallow to deep (level 1 reads the last of them); got {list(blocks)}."
            )
        self.blocks = blocks[::-1] if use_hgu else ()  # of each level
        self.mean_prompts = aggregation != "cost"
        self.class_chunk = class_chunk

        joint = vlm.joint_dim
        if aggregation == "product":
            self.aggregation = ProductAggregation()
        elif aggregation == "similarity":
            self.aggregation = SimilarityAggregation(joint)
        else:
            self.aggregation = SingleCost(prompts, joint)

        self.guidance = nn.ModuleList(
            nn.ConvTranspose2d(vlm.width, out, kernel_size=2**level, stride=2**level)
            for level, out in enumerate(channels, start=1)
        )
        self.attention = nn.ModuleList(TextAttention(out, joint, key_channels) for out in channels) if use_tam else None
        widths = (joint, *channels)
        self.decoder = nn.ModuleList(
            GuidedUpsampling(width, width - out, [out], out, merge=merge_first_level and level == 0)
            for level, (width, out) in enumerate(zip(widths, channels, strict=False))
        )
        self.dropout = nn.Dropout2d(dropout)
        self.predictor = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self._initialise()

    @classmethod
    def from_config(cls, cfg: CfgNode, vlm: TowerSpec, prior: TowerSpec | None) -> dict[str, Any]:
        """Read ``MODEL.HG_RSOVSSEG``."""
        node = cfg.MODEL.HG_RSOVSSEG
        return {
            "vlm": vlm,
            "guidance_blocks": node.GUIDANCE_BLOCKS,
            "guidance_channels": node.GUIDANCE_CHANNELS,
            "key_channels": node.KEY_CHANNELS,
            "aggregation": node.AGGREGATION,
            "prompts": len(Vocabulary.templates_of(cfg)),
            "use_tam": node.USE_TAM,
            "use_hgu": node.USE_HGU,
            "dropout": node.DROPOUT,
            "merge_first_level": node.MERGE_FIRST_LEVEL,
            "class_chunk": cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK,
        }

    def request(self) -> FeatureRequest:
        """Ask for the guidance blocks and for a dense map that keeps each token's own residual."""
        return FeatureRequest(vlm_blocks=tuple(sorted(self.blocks)), dense="token_residual")

    def forward(self, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None) -> Tensor:
        """Return [B, T, 2^n h, 2^n w] logits for a VLM grid of h x w and n levels."""
        mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
        embeddings = mean[:, None] if self.mean_prompts else text.embeddings

        # TAM's softmax runs over the classes, so it sees all of them; everything after it is per class.
        guides = [self._guide(level, image, mean) for level in range(len(self.decoder))]
        chunk = classes_per_pass(self.class_chunk, len(image.dense), len(embeddings), _MAPS_PER_PASS)
        parts = [slice(start, start + chunk) for start in range(0, len(embeddings), chunk)]
        return torch.cat([self._decode(image.dense, embeddings[part], guides, part) for part in parts], dim=1)

    def _guide(self, level: int, image: ImageFeatures, text: Tensor) -> Callable[[slice], Tensor]:
        """Return the function from classes to their guidance's share of a decoder level."""
        stage = self.decoder[level]
        features = self.guidance[level](image.blocks[self.blocks[level]])  # E_u
        if self.attention is None:
            share = stage.guide([features])
            return lambda classes: share
        attention = self.attention[level]
        attended = attention(features, text)
        return lambda classes: stage.guide([attention.guidance(attended, classes)])

    def _decode(
        self, dense: Tensor, embeddings: Tensor, guides: list[Callable[[slice], Tensor]], classes: slice
    ) -> Tensor:
        """Return the logits of some classes, whose ``embeddings`` are [t, P, C]."""
        x = self.aggregation(dense, embeddings)  # F_a
        for stage, guide in zip(self.decoder, guides, strict=True):
            x = stage(x, guide(classes))  # HD
        shape = x.shape[:2]
        return self.predictor(self.dropout(x.flatten(0, 1))).squeeze(1).unflatten(0, shape)

    def _initialise(self) -> None:
        """Start the 3x3 convolutions as the official training does; the rest keeps PyTorch's defaults."""
        for stage in self.decoder:
            for conv in (stage.conv1, stage.conv2):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.zeros_(self.predictor.bias)


def _check(vlm: TowerSpec, channels: Sequence[int], aggregation: str, use_tam: bool, use_hgu: bool) -> None:
    if aggregation not in _AGGREGATIONS:
        raise ValueError(f"{_KEY}.AGGREGATION must be one of {', '.join(_AGGREGATIONS)}, got {aggregation!r}.")
    if use_tam and not use_hgu:
        raise ValueError(f"{_KEY}: text attention guides the upsampling; with USE_HGU off, turn USE_TAM off too.")
    widths = [vlm.joint_dim, *channels]
    shrinks = all(before > after for before, after in zip(widths, channels, strict=False))
    if not channels or not shrinks or any(width <= 0 or width % GROUP_WIDTH for width in channels):
        raise ValueError(
            f"{_KEY}.GUIDANCE_CHANNELS must be multiples of {GROUP_WIDTH} that shrink from level to level, the first "
            f"below the joint width {vlm.joint_dim} of the VLM; got {list(channels)}."
        )
