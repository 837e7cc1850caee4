"""CAT-Seg: Cost AggregaTion (CVPR 2024), the common ancestor of GSNet, RSKT-Seg and DR-Seg.

The cosine of every pixel and every class is a cost volume; an aggregator refines it over space (guided by the
image) and over classes (guided by the text), and a decoder guided by CLIP's own blocks restores detail.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor

from ovrs.heads.base import Head, prompt_channels
from ovrs.heads.blocks.aggregator import SWIN, AggregatorOptions, CostAggregator
from ovrs.heads.blocks.chunks import MAPS_PER_PASS, classes_per_pass, over_classes
from ovrs.heads.blocks.fusion import SingleCost
from ovrs.heads.blocks.guided_decoder import STANDARD_DECODER, DecoderOptions, GuidedDecoder
from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec

_KEY = "MODEL.CAT_SEG"


@SEM_SEG_HEADS_REGISTRY.register()
class CATSegHead(Head):
    """Cost volume, aggregator and guided decoder; no prior.

    Args:
        vlm: shape of the vision-language model.
        prompts: prompts per class that become channels of the cost volume; 0 for the mean embedding.
        aggregator, decoder: shapes of the two parts.
        class_chunk: classes per pass of the memory-hungry parts at inference; 0 chooses.
    """

    @configurable
    def __init__(
        self,
        *,
        vlm: TowerSpec,
        prompts: int = 0,
        aggregator: AggregatorOptions = SWIN,
        decoder: DecoderOptions = STANDARD_DECODER,
        class_chunk: int = 0,
    ) -> None:
        super().__init__()
        self.mean_prompts, self.class_chunk = not prompts, class_chunk
        self.embed = SingleCost(prompts or 1, aggregator.hidden_dim)
        self.aggregator = CostAggregator(vlm.joint_dim, aggregator, _KEY)
        self.decoder = GuidedDecoder(aggregator.hidden_dim, {"vlm": vlm}, decoder, _KEY)

    @classmethod
    def from_config(cls, cfg: CfgNode, vlm: TowerSpec, prior: TowerSpec | None) -> dict[str, Any]:
        """Read ``MODEL.CAT_SEG``."""
        node = cfg.MODEL.CAT_SEG
        return {
            "vlm": vlm,
            "prompts": prompt_channels(cfg, node.PROMPT_FUSION, f"{_KEY}.PROMPT_FUSION"),
            "aggregator": AggregatorOptions.from_node(node),
            "decoder": DecoderOptions.from_config(cfg, node),
            "class_chunk": cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK,
        }

    def request(self) -> FeatureRequest:
        """Ask for the blocks that guide the decoder."""
        return FeatureRequest(vlm_blocks=self.decoder.blocks["vlm"])

    def forward(self, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
        embeddings = mean[:, None] if self.mean_prompts else text.embeddings

        chunk = classes_per_pass(self.class_chunk, len(image.dense), len(embeddings), MAPS_PER_PASS)
        cost = over_classes(lambda part: self.embed(image.dense, part[0]), chunk, embeddings[None])
        cost = self.aggregator(cost, image.dense, mean, chunk)
        return self.decoder(cost, self.decoder.guide(image, prior), chunk)
