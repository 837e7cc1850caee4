"""Segmentation heads: one file per published model, in Detectron2's head registry."""

from ovrs.heads.base import (
    Artefact,
    Head,
    HeadContext,
    all_quantities,
    build_head,
    head_class,
    list_heads,
    register_head,
)
from ovrs.heads.cat_seg import CATSegHead
from ovrs.heads.clip_attention import ClipAttentionHead
from ovrs.heads.dino_cost import DinoCostHead
from ovrs.heads.dr_seg import DRSegHead
from ovrs.heads.gsnet import GSNetHead
from ovrs.heads.hg_rsovsseg import HGRSOVSSegHead
from ovrs.heads.pi_seg import PiSegHead
from ovrs.heads.proxy_clip import ProxyClipHead
from ovrs.heads.quantities import Pass, Quantity, output_of, recording
from ovrs.heads.rskt_seg import RSKTSegHead
from ovrs.heads.sam3 import Sam3Head

__all__ = [
    "Artefact",
    "CATSegHead",
    "ClipAttentionHead",
    "DRSegHead",
    "DinoCostHead",
    "GSNetHead",
    "HGRSOVSSegHead",
    "Head",
    "HeadContext",
    "Pass",
    "PiSegHead",
    "ProxyClipHead",
    "Quantity",
    "RSKTSegHead",
    "Sam3Head",
    "all_quantities",
    "build_head",
    "head_class",
    "list_heads",
    "output_of",
    "recording",
    "register_head",
]
