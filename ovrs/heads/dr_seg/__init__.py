"""DR-Seg (arXiv 2604.02010): the head, its parts, and the file of its channel ranking."""

from ovrs.heads.dr_seg.head import DRSegHead, DRSegOptions

__all__ = ["DRSegHead", "DRSegOptions"]
