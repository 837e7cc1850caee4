"""Segmentation heads: one file per published model, in Detectron2's head registry."""

from ovrs.heads.base import Head, build_head
from ovrs.heads.gsnet import GSNetHead

__all__ = ["GSNetHead", "Head", "build_head"]
