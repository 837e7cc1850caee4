"""GSNet: Generalist and Specialist Network (AAAI 2025).

A vision-language model (generalist, subscript G) and a remote-sensing DINO (specialist, S) each give a
cost volume per class; query-guided fusion (QGFF) merges them, CAT-Seg's aggregator refines the
result over space and classes, and a decoder with taps from both towers (RIPD) restores detail. Where paper
and official code differ, the code is followed, since the published numbers come from it.
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
from ovrs.heads.blocks.decoder import resampler
from ovrs.heads.blocks.fusion import ConcatenationFusion, FusedQuery, QueryGuidedFusion, SingleCost
from ovrs.heads.blocks.guided_decoder import DecoderOptions, GuidedDecoder, grid_ratio, require_tower
from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec

_KEY = "MODEL.GSNET"
_FUSIONS = ("query_guided", "concatenation", "fused_query")
GSNET_DECODER = DecoderOptions(use_prior_taps=True)


@SEM_SEG_HEADS_REGISTRY.register()
class GSNetHead(Head):
    """Query-guided fusion, aggregator and residual information preservation decoder.

    Args:
        vlm: shape of the vision-language model.
        prior: shape of the prior; may be ``None`` when no option uses it.
        use_vlm_cost, use_prior_cost: which cost volumes are formed.
        fusion: ``query_guided``, or the ablations ``concatenation`` and ``fused_query``; matters with both costs.
        prompts: prompts per class that become channels of the cost volume; 0 for the mean embedding.
        aggregator, decoder: shapes of the shared parts.
        class_chunk: classes per pass of the memory-hungry parts at inference; 0 chooses.
    """

    @configurable
    def __init__(
        self,
        *,
        vlm: TowerSpec,
        prior: TowerSpec | None,
        use_vlm_cost: bool = True,
        use_prior_cost: bool = True,
        fusion: str = "query_guided",
        prompts: int = 0,
        aggregator: AggregatorOptions = SWIN,
        decoder: DecoderOptions = GSNET_DECODER,
        class_chunk: int = 0,
    ) -> None:
        super().__init__()
        uses_prior = use_prior_cost or decoder.use_prior_taps
        _require(
            use_vlm_cost or use_prior_cost, "USE_VLM_COST and USE_PRIOR_COST are both off; at least one cost is needed."
        )
        _require(fusion in _FUSIONS, f"FUSION must be one of {', '.join(_FUSIONS)}, got {fusion!r}.")
        self.use_vlm_cost, self.use_prior_cost = use_vlm_cost, use_prior_cost
        self.mean_prompts, self.class_chunk = not prompts, class_chunk

        joint, hidden, channels = vlm.joint_dim, aggregator.hidden_dim, prompts or 1
        if use_prior_cost:
            require_tower(prior, "prior", f"{_KEY}.USE_PRIOR_COST")
            self.align = resampler(prior.width, joint, 1 / grid_ratio(vlm, prior, "prior"))
        if not (use_vlm_cost and use_prior_cost):
            self.fusion = SingleCost(channels, hidden)
        elif fusion == "query_guided":
            self.fusion = QueryGuidedFusion(channels, hidden)
        elif fusion == "concatenation":
            self.fusion = ConcatenationFusion(joint, hidden)
        else:
            self.fusion = FusedQuery(joint, channels, hidden)
        self.aggregator = CostAggregator(joint, aggregator, _KEY)

        self.decoder = GuidedDecoder(hidden, {"vlm": vlm, "prior": prior}, decoder, _KEY)
        taps = self.decoder.blocks
        self._request = FeatureRequest(taps.get("vlm", ()), taps.get("prior", ()), uses_prior)

    @classmethod
    def from_config(cls, cfg: CfgNode, vlm: TowerSpec, prior: TowerSpec | None) -> dict[str, Any]:
        """Read ``MODEL.GSNET``."""
        node = cfg.MODEL.GSNET
        return {
            "vlm": vlm,
            "prior": prior,
            "use_vlm_cost": node.USE_VLM_COST,
            "use_prior_cost": node.USE_PRIOR_COST,
            "fusion": node.FUSION,
            "prompts": prompt_channels(cfg, node.PROMPT_FUSION, f"{_KEY}.PROMPT_FUSION"),
            "aggregator": AggregatorOptions.from_node(node),
            "decoder": DecoderOptions.from_config(cfg, node),
            "class_chunk": cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK,
        }

    def request(self) -> FeatureRequest:
        """Ask for the tapped blocks, and for the prior where a cost or a tap needs it."""
        return self._request

    def forward(self, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)
        embeddings = mean[:, None] if self.mean_prompts else text.embeddings

        # E_G and E_S in the joint space; the class query is compared with each (QGFF).
        streams = [image.dense] if self.use_vlm_cost else []
        if self.use_prior_cost:
            streams.append(self.align(prior.dense))

        chunk = classes_per_pass(self.class_chunk, len(image.dense), len(embeddings), MAPS_PER_PASS)
        fused = over_classes(lambda part: self.fusion(*streams, part[0]), chunk, embeddings[None])
        refined = self.aggregator(fused, streams[0], mean, chunk)

        # RIPD.
        return self.decoder(refined, self.decoder.guide(image, prior), chunk)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"{_KEY}.{message}")
