"""RSKT-Seg: Remote Sensing Knowledge Transfer (AAAI 2026).

RS-CMA compares the image under four quarter turns, and the features of a remote-sensing DINO, with the classes;
RS-Fusion aggregates the cost maps over space and classes with an efficient transformer; RS-Transfer guides the
decoder with blocks of CLIP, of a remote-sensing CLIP (the companion) and of the DINO. The official code is
followed.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor

from ovrs.heads.base import Head
from ovrs.heads.blocks.aggregator import EFFICIENT, AggregatorOptions, CostAggregator
from ovrs.heads.blocks.chunks import MAPS_PER_PASS, classes_per_pass, over_classes
from ovrs.heads.blocks.cost_fusion import build_cost_fusion
from ovrs.heads.blocks.cost_volume import cosine_cost, rotation_cost
from ovrs.heads.blocks.decoder import resampler
from ovrs.heads.blocks.guided_decoder import DecoderOptions, GuidedDecoder, grid_ratio, require_tower
from ovrs.structures import ROTATIONS, FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec

_KEY = "MODEL.RSKT_SEG"
_FUSIONS = ("separate", "mean", "concat")
RSKT_DECODER = DecoderOptions(use_companion_taps=True, use_prior_taps=True)


@SEM_SEG_HEADS_REGISTRY.register()
class RSKTSegHead(Head):
    """Multi-direction cost maps, efficient aggregation and a decoder with up to three sources of guidance.

    Args:
        vlm: shape of the vision-language model.
        prior: shape of the prior; may be ``None`` when no option uses it.
        companion: shape of the companion CLIP; may be ``None`` when its taps are off.
        use_rotation: whether the cost volume has the image's four quarter turns as channels.
        use_prior_cost: whether the prior gives a second cost volume.
        fusion: of both: ``separate``, ``mean`` or ``concat``.
        aggregator, decoder: shapes of the shared parts.
        class_chunk: classes per pass of the memory-hungry parts at inference; 0 chooses.
    """

    @configurable
    def __init__(
        self,
        *,
        vlm: TowerSpec,
        prior: TowerSpec | None,
        companion: TowerSpec | None = None,
        use_rotation: bool = True,
        use_prior_cost: bool = True,
        fusion: str = "separate",
        aggregator: AggregatorOptions = EFFICIENT,
        decoder: DecoderOptions = RSKT_DECODER,
        class_chunk: int = 0,
    ) -> None:
        super().__init__()
        if fusion not in _FUSIONS:
            raise ValueError(f"{_KEY}.FUSION must be one of {', '.join(_FUSIONS)}, got {fusion!r}.")
        self.use_rotation, self.class_chunk = use_rotation, class_chunk
        self.align = None
        if use_prior_cost:
            require_tower(prior, "prior", f"{_KEY}.USE_PRIOR_COST")
            self.align = resampler(prior.width, vlm.joint_dim, 1 / grid_ratio(vlm, prior, "prior"))
        self.fusion = build_cost_fusion(
            fusion if use_prior_cost else "ori_only", ROTATIONS if use_rotation else 1, 1, aggregator.hidden_dim
        )
        self.aggregator = CostAggregator(vlm.joint_dim, aggregator, _KEY)

        towers = {"vlm": vlm, "companion": companion, "prior": prior}
        self.decoder = GuidedDecoder(aggregator.hidden_dim, towers, decoder, _KEY)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, vlm: TowerSpec, prior: TowerSpec | None, companion: TowerSpec | None = None
    ) -> dict[str, Any]:
        """Read ``MODEL.RSKT_SEG``."""
        node = cfg.MODEL.RSKT_SEG
        return {
            "vlm": vlm,
            "prior": prior,
            "companion": companion,
            "use_rotation": node.USE_ROTATION,
            "use_prior_cost": node.USE_PRIOR_COST,
            "fusion": node.FUSION,
            "aggregator": AggregatorOptions.from_node(node),
            "decoder": DecoderOptions.from_config(cfg, node),
            "class_chunk": cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK,
        }

    def request(self) -> FeatureRequest:
        """Ask for rotations, for the tapped blocks, and for the prior where a cost or a tap needs it."""
        taps = self.decoder.blocks
        return FeatureRequest(
            vlm_blocks=taps.get("vlm", ()),
            prior_blocks=taps.get("prior", ()),
            uses_prior=self.align is not None or "prior" in taps,
            companion_blocks=taps.get("companion", ()),
            rotations=self.use_rotation,
        )

    def forward(self, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)

        # RS-CMA.
        views = image.rotated if self.use_rotation else image.dense[:, None]
        costs = [rotation_cost(views, mean)]
        if self.align is not None:
            costs.append(cosine_cost(self.align(prior.dense), mean[:, None]))
        chunk = classes_per_pass(self.class_chunk, len(image.dense), len(mean), MAPS_PER_PASS)
        maps = over_classes(self.fusion, chunk, *costs)

        # RS-Fusion.
        maps = self.aggregator(maps, image.dense, mean, chunk)

        # RS-Transfer.
        return self.decoder(maps, self.decoder.guide(image, prior), chunk)
