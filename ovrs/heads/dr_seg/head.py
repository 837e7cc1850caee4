"""DR-Seg: decouple and rectify (arXiv 2604.02010).

CLIP's joint space has channels that name things (semantic) and channels that draw them (structural). SPSD tells
them apart offline; PDGR rectifies the structural ones along a graph that a remote-sensing DINO draws; UGAF adds the
rectified cost where the original one is unsure. Rotations, aggregation and decoder are RSKT-Seg's. No code was
published: where the paper is silent, the choice is a key of ``MODEL.DR_SEG``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.config.options import option, read_options
from ovrs.errors import ConfigError
from ovrs.heads.base import (
    Artefact,
    HeadContext,
    grid_ratio,
    is_logged,
    log_histogram,
    log_scalars,
    needed,
    register_head,
)
from ovrs.heads.blocks.chunks import over_classes
from ovrs.heads.blocks.cost_volume import cosine_cost
from ovrs.heads.blocks.decoder import resampler
from ovrs.heads.blocks.fusion import COST_FUSIONS
from ovrs.heads.cost_volume import RotationHead, RotationOptions
from ovrs.heads.dr_seg.channels import ChannelOptions, ChannelOrder, ChannelSplit
from ovrs.heads.dr_seg.fusion import FusionOptions, MultiScaleFusion, UncertaintyGate
from ovrs.heads.dr_seg.graph import GraphOptions, GraphRectification
from ovrs.heads.dr_seg.ranking_file import channel_count
from ovrs.heads.quantities import Pass, Quantity, output_of
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec

if TYPE_CHECKING:
    from detectron2.config import CfgNode


@dataclass(frozen=True)
class DRSegOptions(RotationOptions):
    """The paper's Tables 2 to 6, and every open reading of its text, are values of these."""

    use_prior_taps: bool = option(False, "decoder guidance from blocks of the prior, as in RSKT-Seg")
    use_companion_taps: bool = option(False, "decoder guidance from blocks of the companion, as in RSKT-Seg")
    prior_block: int = option(-1, "block whose features build the graph; -1 for the last")
    prior_align: Literal["avgpool", "conv"] = option("avgpool", "a finer prior grid is averaged or learned down")
    spsd: ChannelOptions = option(ChannelOptions(), "semantic and structural channels")
    pdgr: GraphOptions = option(GraphOptions(), "prior-driven graph rectification")
    fusion: FusionOptions = option(FusionOptions(), "of the original and the refined cost maps")

    def check(self, key: str) -> None:  # noqa: D102
        super().check(key)
        if not self.pdgr.enabled and self.fusion.type != "ori_only":
            raise ConfigError(
                f"{key}.PDGR.ENABLED is off, so there is no refined cost; set {key}.FUSION.TYPE to 'ori_only', got "
                f"{self.fusion.type!r}."
            )

    @property
    def refines(self) -> bool:
        """Whether there is a refined cost."""
        return self.pdgr.enabled and self.fusion.type != "ori_only"


@register_head("DR_SEG", DRSegOptions)
class DRSegHead(RotationHead):
    """Decoupling, graph rectification, uncertainty-guided fusion, then RSKT-Seg's aggregator and decoder."""

    def __init__(self, options: DRSegOptions, towers: Mapping[str, TowerSpec], context: HeadContext) -> None:
        super().__init__(options, towers, context)
        joint, fusion = towers["vlm"].joint_dim, options.fusion
        self.mean_rotations = fusion.ori_agg == "mean"

        # SPSD and PDGR. Where every channel is semantic there is nothing to rectify.
        self.channels = self.align = self.rectify = None
        self.graph_block: int | None = None
        if options.refines:
            order = ChannelOrder.of(options.spsd, joint, context.checkpoint)
            semantic = channel_count(options.spsd.rho, joint) if options.spsd.enabled else 0
            self.channels = ChannelSplit(order.order, joint, semantic, order.source)
            if semantic < joint:
                prior = needed(towers, "prior", f"{self.key}.PDGR.ENABLED")
                self.graph_block = _block_index(options.prior_block, prior.depth, f"{self.key}.PRIOR_BLOCK")
                self.align = _aligner(options.prior_align, prior.width, grid_ratio(towers, "prior"))
                gamma = options.pdgr.ln_gamma_init or order.mean_rms(semantic)
                self.rectify = GraphRectification(joint - semantic, prior.width, options.pdgr, gamma)

        # UGAF.
        channels = 1 if self.mean_rotations else self.rotations
        self.gate = None
        if fusion.type == "ugaf":
            self.gate = UncertaintyGate(fusion.unc_tau, fusion.unc_detach)
            self.fusion = MultiScaleFusion(
                channels, 1, options.hidden_dim, fusion.ms_kernels, fusion.head_kernel, fusion.embed_act
            )
        else:
            self.fusion = COST_FUSIONS[fusion.type](channels, 1, options.hidden_dim)
        self.add_refinement(options, towers, context)

    @classmethod
    def artefacts(cls, cfg: CfgNode) -> tuple[Artefact, ...]:
        """Return the channel ranking, where the configuration needs one."""
        options = read_options(cls.options, cfg.MODEL.DR_SEG, "MODEL.DR_SEG")
        if not (options.refines and options.spsd.needs_file):
            return ()
        key = "MODEL.DR_SEG.SPSD"
        # Which channels are structural changes no count and no time.
        stand_in = (f"{key}.SELECT", "random", f"{key}.FILE", "")
        return (
            Artefact(
                key=f"{key}.FILE",
                path=options.spsd.file,
                name="channels.npz",
                command="tools/rank_channels.py",
                maker="ovrs.ranking:save_ranking",
                stand_in=stand_in,
            ),
        )

    def requests(self) -> dict[str, TowerRequest]:
        """Ask for rotations, for the blocks that guide, and for the prior's block that draws the graph."""
        wanted = super().requests()
        if self.graph_block is not None:
            guiding = wanted.get("prior", TowerRequest(dense="none"))
            blocks = tuple(dict.fromkeys((*guiding.blocks, self.graph_block)))
            wanted["prior"] = replace(guiding, blocks=blocks)
        return wanted

    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, T, 4h, 4w] logits for a VLM grid of h x w (two decoder levels)."""
        # C_ori: all rotations, of the features as CLIP gives them (Eq. 10).
        cost = self.rotated_cost(features, text)
        costs = [cost.mean(dim=2, keepdim=True) if self.mean_rotations else cost]

        # C_ref: of the rectified features (Eq. 11), gated by the uncertainty of C_ori (Eq. 12 and 13).
        if self.channels is not None:
            refined = cosine_cost(self.rectified(features), text.mean[:, None])
            if self.gate is not None:
                gate, uncertainty = self.gate(cost)
                refined = gate[:, None] * refined
                if is_logged(self):
                    log_scalars("dr_seg", uncertainty=uncertainty.mean(), gate=gate.mean())
                    log_histogram("dr_seg/uncertainty", uncertainty)
            costs.append(refined)

        dense, chunk = features["vlm"].dense, self.chunk(features["vlm"].dense, text)
        maps = over_classes(self.fusion, chunk, *costs)
        return self.refine(maps, dense, features, text, chunk)

    def rectified(self, features: Mapping[str, TowerFeatures]) -> Tensor:
        """Return F_ref [B, C, h, w]: CLIP's semantic channels bit for bit, its structural ones rectified (PDGR)."""
        dense = features["vlm"].dense
        semantic, structural = self.channels.split(dense)
        if self.rectify is None:
            return dense
        structural = self.rectify(structural, self.align(features["prior"].blocks[self.graph_block]))
        if semantic.shape[1] and is_logged(self):
            log_scalars("dr_seg", rms_ratio=structural.square().mean().sqrt() / semantic.square().mean().sqrt())
        return self.channels.recompose(semantic, structural)

    def quantities(self) -> dict[str, Quantity]:
        """Return the parts of SPSD, PDGR and UGAF too."""
        shown = super().quantities()
        if self.channels is not None:
            shown |= self._shown_of_channels()
            shown["refined_correlation"] = self.correlation(
                "C_ref: cosines of the rectified map and classes (Eq. 11)", lambda seen: self.rectified(seen.features)
            )
        if self.rectify is not None:
            shown |= self._shown_of_graph()
        if self.channels is not None and self.gate is not None:
            for index, (name, meaning) in enumerate({"gate": "G", "uncertainty": "M, of the original cost"}.items()):
                shown[name] = Quantity(
                    "map", f"{meaning} (Eq. 12)", lambda seen, i=index: seen.output(self.gate)[i][:, 0], (self.gate,)
                )
        return {**shown, "fused": output_of(self.fusion, "class_features", "E, both cost volumes after their fusion")}

    def _shown_of_channels(self) -> dict[str, Quantity]:
        """What semantic and structural channels add to the cosine of CLIP's map and a class (Eq. 5 and 6)."""

        def share(seen: Pass, part: int) -> Tensor:
            pixels = F.normalize(seen.features["vlm"].dense.float(), dim=1)
            words = self.channels.split(seen.text.mean[..., None, None].float())[part]
            return torch.einsum("bchw,tcij->bthw", self.channels.split(pixels)[part], words)

        return {
            f"{name}_correlation": Quantity(
                "class_maps", f"what the {name} channels add to the cosine", lambda seen, part=part: share(seen, part)
            )
            for part, name in enumerate(("semantic", "structural"))
        }

    def _shown_of_graph(self) -> dict[str, Quantity]:
        """The graph of the prior, and structural channels before and after they went along it (Eq. 7 to 9)."""
        graph = (self.rectify,)
        return {
            "affinity": Quantity(
                "relations",
                "A, between all cells (Eq. 7)",
                lambda seen: self.rectify.affinity(seen.inputs(*graph)[1]),
                graph,
            ),
            "neighbours": Quantity(
                "relations",
                "normalised weights of a cell's neighbours (Eq. 8 and 9)",
                lambda seen: self.rectify.graph(seen.inputs(*graph)[1]),
                graph,
            ),
            "structural": Quantity(
                "features", "structural channels of CLIP's map", lambda seen: seen.inputs(*graph)[0], graph
            ),
            "rectified": output_of(self.rectify, "features", "the same after PDGR"),
        }


def _block_index(configured: int, depth: int, key: str) -> int:
    if not -depth <= configured < depth:
        raise ConfigError(f"{key} must be between {-depth} and {depth - 1}, got {configured}.")
    return configured % depth


def _aligner(kind: str, width: int, finer: Fraction) -> nn.Module:
    """Return what brings prior features to the VLM's grid, ``finer`` prior cells per VLM cell and axis."""
    if finer == 1:
        return nn.Identity()
    if kind == "avgpool" and finer.denominator == 1:
        return nn.AvgPool2d(int(finer))
    return resampler(width, width, 1 / finer)
