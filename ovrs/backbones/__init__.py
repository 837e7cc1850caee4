"""Vision-language models, self-supervised priors, and their weights."""

from ovrs.backbones.base import PRIOR_REGISTRY, VLM, VLM_REGISTRY, Tower
from ovrs.backbones.build import build_tower, build_towers, build_vlm
from ovrs.backbones.clip import OpenClipVLM
from ovrs.backbones.companion import ClipCompanion
from ovrs.backbones.dino import DinoPrior, Dinov3Prior, XcitPrior
from ovrs.backbones.sam3 import Sam3VLM

__all__ = [
    "PRIOR_REGISTRY",
    "VLM",
    "VLM_REGISTRY",
    "ClipCompanion",
    "DinoPrior",
    "Dinov3Prior",
    "OpenClipVLM",
    "Sam3VLM",
    "Tower",
    "XcitPrior",
    "build_tower",
    "build_towers",
    "build_vlm",
]
