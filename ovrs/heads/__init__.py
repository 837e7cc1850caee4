"""Segmentation heads: one file per published model, in Detectron2's head registry."""

from ovrs.heads.base import Head, build_head
from ovrs.heads.gsnet import GSNetHead
from ovrs.heads.hg_rsovsseg import HGRSOVSSegHead

__all__ = ["GSNetHead", "HGRSOVSSegHead", "Head", "build_head"]
