"""DR-Seg: decouple and rectify (arXiv 2604.02010).

CLIP's joint space has channels that name things (semantic) and channels that draw them (structural). SPSD tells
them apart offline; PDGR rectifies the structural ones along a graph that a remote-sensing DINO draws; UGAF adds the
rectified cost where the original one is unsure. Rotations, aggregation and decoder are RSKT-Seg's. No code was
published: where the paper is silent, the choice is a key of ``MODEL.DR_SEG``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ovrs.channel_ranking import ChannelRanking, channel_count
from ovrs.heads.base import Head, is_logged, log_histogram, log_scalars
from ovrs.heads.blocks.aggregator import EFFICIENT, AggregatorOptions, CostAggregator
from ovrs.heads.blocks.channels import ChannelSplit
from ovrs.heads.blocks.chunks import MAPS_PER_PASS, classes_per_pass, over_classes
from ovrs.heads.blocks.cost_fusion import COST_FUSIONS, UncertaintyGate, build_cost_fusion
from ovrs.heads.blocks.cost_volume import cosine_cost, rotation_cost
from ovrs.heads.blocks.decoder import resampler
from ovrs.heads.blocks.graph import GraphOptions, GraphRectification
from ovrs.heads.blocks.guided_decoder import (
    STANDARD_DECODER,
    DecoderOptions,
    GuidedDecoder,
    grid_ratio,
    require_tower,
)
from ovrs.structures import ROTATIONS, FeatureRequest, ImageFeatures, PriorFeatures, TextFeatures, TowerSpec

logger = logging.getLogger(__name__)

_KEY = "MODEL.DR_SEG"
_CONTROL_SEED = 0  # of the random order of channels, an ablation


@dataclass(frozen=True)
class ChannelOrder:
    """Which channels are semantic.

    Attributes:
        order: [C] int64, semantic first; ``None`` leaves it to a checkpoint.
        rho: share of semantic channels.
        channel_rms: [C] root mean square of the un-normalised features, if known.
        source: for messages.
    """

    order: Tensor | None
    rho: float
    channel_rms: Tensor | None = None
    source: str = ""

    def mean_rms(self, semantic: int) -> float:
        """Return the mean RMS of the structural channels; 1 where a checkpoint brings order and scale.

        Raises:
            ValueError: there is an order, but no ranking that it comes from.
        """
        if self.order is None:
            return 1.0
        if self.channel_rms is None:
            raise ValueError(
                f"{_KEY}.PDGR.LN_GAMMA_INIT 0 takes the scale from the channel ranking: set {_KEY}.SPSD.FILE too."
            )
        return float(self.channel_rms[self.order[semantic:]].mean())

    @classmethod
    def from_node(cls, node: CfgNode, channels: int, checkpoint: bool = False) -> ChannelOrder:
        """Read ``MODEL.DR_SEG.SPSD``. A file that is not there is no error where a checkpoint brings its content.

        Raises:
            RankingError: the file cannot be used.
            ValueError: an impossible value of SELECT.
        """
        if node.SELECT not in ("score", "random", "inverse"):
            raise ValueError(f"{_KEY}.SPSD.SELECT must be score, random or inverse, got {node.SELECT!r}.")
        if not node.ENABLED:
            return cls(torch.arange(channels), 0.0, source=f"none ({_KEY}.SPSD.ENABLED is off)")
        wanted = node.FILE and (Path(node.FILE).exists() or not checkpoint)
        if node.FILE and not wanted:
            logger.info("%s.SPSD.FILE %s does not exist; the checkpoint brings the channel ranking.", _KEY, node.FILE)
        ranking = ChannelRanking.load(node.FILE, channels) if wanted else None
        rms = torch.from_numpy(ranking.channel_rms).float() if ranking else None
        if node.SELECT == "random":
            order = torch.randperm(channels, generator=torch.Generator().manual_seed(_CONTROL_SEED))
            return cls(order, node.RHO, rms, f"the random one of {_KEY}.SPSD.SELECT")
        if ranking is None:
            return cls(None, node.RHO)
        if ranking.meta["lambda"] != node.LAMBDA:
            ranking = ranking.reranked(node.LAMBDA)
        order = torch.from_numpy(ranking.order)
        return cls(order.flip(0) if node.SELECT == "inverse" else order, node.RHO, rms, node.FILE)


@dataclass(frozen=True)
class FusionOptions:
    """How the original and the refined cost volume are joined.

    Attributes:
        kind: a name of ``COST_FUSIONS``; only ``ugaf`` has a gate.
        unc_tau, unc_detach: of the gate.
        embed_act, ms_kernels, head_kernel: of ``ugaf``.
        ori_agg: whether the rotations are channels of the embedding (``stack``) or averaged (``mean``).
    """

    kind: str = "ugaf"
    unc_tau: float = 0.01
    unc_detach: bool = True
    embed_act: str = "none"
    ms_kernels: Sequence[int] = (3, 5, 7)
    head_kernel: int = 3
    ori_agg: str = "stack"

    @classmethod
    def from_node(cls, node: CfgNode) -> FusionOptions:
        """Read ``MODEL.DR_SEG.FUSION``."""
        return cls(
            node.TYPE,
            node.UNC_TAU,
            node.UNC_DETACH,
            node.EMBED_ACT,
            node.MS_KERNELS,
            node.HEAD_KERNEL,
            node.ORI_AGG,
        )

    def of_kind(self) -> dict[str, Any]:
        """Return the options that only ``ugaf`` has."""
        if self.kind != "ugaf":
            return {}
        return {"kernels": self.ms_kernels, "head_kernel": self.head_kernel, "activation": self.embed_act}

    def check(self) -> None:
        """Raise ValueError for impossible values, naming the key."""
        allowed = {"TYPE": (self.kind, COST_FUSIONS), "EMBED_ACT": (self.embed_act, ("none", "sigmoid"))}
        allowed["ORI_AGG"] = (self.ori_agg, ("stack", "mean"))
        for name, (value, choices) in allowed.items():
            if value not in choices:
                raise ValueError(f"{_KEY}.FUSION.{name} must be one of {', '.join(choices)}, got {value!r}.")
        if self.unc_tau <= 0:
            raise ValueError(f"{_KEY}.FUSION.UNC_TAU must be above 0, got {self.unc_tau}.")
        for name, sides in (("MS_KERNELS", self.ms_kernels), ("HEAD_KERNEL", [self.head_kernel])):
            if not sides or any(side < 1 or side % 2 == 0 for side in sides):
                raise ValueError(f"{_KEY}.FUSION.{name} must be odd and above 0, got {list(sides)}.")


GRAPH = GraphOptions()
UGAF = FusionOptions()


@SEM_SEG_HEADS_REGISTRY.register()
class DRSegHead(Head):
    """Decoupling, graph rectification, uncertainty-guided fusion, then RSKT-Seg's aggregator and decoder.

    Args:
        vlm: shape of the vision-language model.
        prior: shape of the prior; may be ``None`` when no option uses it.
        companion: shape of the companion CLIP; may be ``None`` when its taps are off.
        channels: semantic and structural channels.
        graph: readings of the rectification; ``None`` switches it off, and the refined cost with it.
        ln_gamma: initial scale of the rectified channels; 0 takes the mean RMS of the structural channels.
        prior_block: the block whose features build the graph; -1 for the last.
        prior_align: how a finer prior grid is brought down: ``avgpool`` or a learned ``conv``.
        fusion: of the original and the refined cost.
        use_rotation: whether the original cost has the image's four quarter turns as channels.
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
        channels: ChannelOrder,
        graph: GraphOptions | None = GRAPH,
        ln_gamma: float = 1.0,
        prior_block: int = -1,
        prior_align: str = "avgpool",
        fusion: FusionOptions = UGAF,
        use_rotation: bool = True,
        aggregator: AggregatorOptions = EFFICIENT,
        decoder: DecoderOptions = STANDARD_DECODER,
        class_chunk: int = 0,
    ) -> None:
        super().__init__()
        fusion.check()
        if graph is None and fusion.kind != "ori_only":
            raise ValueError(
                f"{_KEY}.PDGR.ENABLED is off, so there is no refined cost; set {_KEY}.FUSION.TYPE to 'ori_only', got "
                f"{fusion.kind!r}."
            )
        joint, hidden = vlm.joint_dim, aggregator.hidden_dim
        self.use_rotation, self.class_chunk = use_rotation, class_chunk
        self.mean_rotations = fusion.ori_agg == "mean"

        # SPSD and PDGR. Where every channel is semantic there is nothing to rectify.
        self.channels = self.align = self.rectify = None
        self.graph_block: int | None = None
        if graph is not None and fusion.kind != "ori_only":
            semantic = channel_count(channels.rho, joint)
            self.channels = ChannelSplit(channels.order, joint, semantic, channels.source)
            if semantic < joint:
                require_tower(prior, "prior", f"{_KEY}.PDGR.ENABLED")
                self.graph_block = _block_index(prior_block, prior.depth)
                self.align = _aligner(prior_align, prior.width, grid_ratio(vlm, prior, "prior"))
                gamma = ln_gamma or channels.mean_rms(semantic)
                self.rectify = GraphRectification(joint - semantic, prior.width, graph, gamma, f"{_KEY}.PDGR")

        # UGAF.
        self.gate = UncertaintyGate(fusion.unc_tau, fusion.unc_detach) if fusion.kind == "ugaf" else None
        rotations = ROTATIONS if use_rotation and not self.mean_rotations else 1
        self.fusion = build_cost_fusion(fusion.kind, rotations, 1, hidden, **fusion.of_kind())

        self.aggregator = CostAggregator(joint, aggregator, _KEY)
        self.decoder = GuidedDecoder(hidden, {"vlm": vlm, "companion": companion, "prior": prior}, decoder, _KEY)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, vlm: TowerSpec, prior: TowerSpec | None, companion: TowerSpec | None = None
    ) -> dict[str, Any]:
        """Read ``MODEL.DR_SEG``."""
        node = cfg.MODEL.DR_SEG
        return {
            "vlm": vlm,
            "prior": prior,
            "companion": companion,
            "channels": ChannelOrder.from_node(node.SPSD, vlm.joint_dim, checkpoint=bool(cfg.MODEL.WEIGHTS)),
            "graph": GraphOptions.from_node(node.PDGR) if node.PDGR.ENABLED else None,
            "ln_gamma": node.PDGR.LN_GAMMA_INIT,
            "prior_block": node.PRIOR_BLOCK,
            "prior_align": node.PRIOR_ALIGN,
            "fusion": FusionOptions.from_node(node.FUSION),
            "use_rotation": node.USE_ROTATION,
            "aggregator": AggregatorOptions.from_node(node),
            "decoder": DecoderOptions.from_config(cfg, node),
            "class_chunk": cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK,
        }

    def request(self) -> FeatureRequest:
        """Ask for rotations, for the tapped blocks, and for the prior where the graph or a tap needs it."""
        taps = self.decoder.blocks
        of_graph = () if self.graph_block is None else (self.graph_block,)
        return FeatureRequest(
            vlm_blocks=taps.get("vlm", ()),
            prior_blocks=tuple(dict.fromkeys((*taps.get("prior", ()), *of_graph))),
            uses_prior=bool(of_graph) or "prior" in taps,
            companion_blocks=taps.get("companion", ()),
            rotations=self.use_rotation,
        )

    def forward(self, image: ImageFeatures, text: TextFeatures, prior: PriorFeatures | None) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        mean = F.normalize(text.embeddings.mean(dim=1), dim=-1)

        # C_ori: all rotations, of the features as CLIP gives them (Eq. 10).
        views = image.rotated if self.use_rotation else image.dense[:, None]
        cost = rotation_cost(views, mean)
        embedded = [cost.mean(dim=2, keepdim=True) if self.mean_rotations else cost]

        # C_ref: of the rectified features (Eq. 11), gated by the uncertainty of C_ori (Eq. 12 and 13).
        if self.channels is not None:
            refined = cosine_cost(self.rectified(image.dense, prior), mean[:, None])
            if self.gate is not None:
                gate, uncertainty = self.gate(cost)
                refined = gate[:, None] * refined
                if is_logged(self):
                    log_scalars("dr_seg", uncertainty=uncertainty.mean(), gate=gate.mean())
                    log_histogram("dr_seg/uncertainty", uncertainty)
            embedded.append(refined)

        chunk = classes_per_pass(self.class_chunk, len(image.dense), len(mean), MAPS_PER_PASS)
        maps = over_classes(self.fusion, chunk, *embedded)
        maps = self.aggregator(maps, image.dense, mean, chunk)
        return self.decoder(maps, self.decoder.guide(image, prior), chunk)

    def rectified(self, dense: Tensor, prior: PriorFeatures | None) -> Tensor:
        """Return F_ref [B, C, h, w]: semantic channels of ``dense`` bit for bit, structural ones rectified (PDGR)."""
        semantic, structural = self.channels.split(dense)
        if self.rectify is None:
            return dense
        structural = self.rectify(structural, self.align(prior.blocks[self.graph_block]))
        if semantic.shape[1] and is_logged(self):
            log_scalars("dr_seg", rms_ratio=structural.square().mean().sqrt() / semantic.square().mean().sqrt())
        return self.channels.recompose(semantic, structural)


def _block_index(configured: int, depth: int) -> int:
    if not -depth <= configured < depth:
        raise ValueError(f"{_KEY}.PRIOR_BLOCK must be between {-depth} and {depth - 1}, got {configured}.")
    return configured % depth


def _aligner(kind: str, width: int, finer: Fraction) -> nn.Module:
    """Return what brings prior features to the VLM's grid, ``finer`` prior cells per VLM cell and axis."""
    if kind not in ("avgpool", "conv"):
        raise ValueError(f"{_KEY}.PRIOR_ALIGN must be 'avgpool' or 'conv', got {kind!r}.")
    if finer == 1:
        return nn.Identity()
    if kind == "avgpool" and finer.denominator == 1:
        return nn.AvgPool2d(int(finer))
    return resampler(width, width, 1 / finer)
