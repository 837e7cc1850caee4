"""Vision-language models, self-supervised priors, and their weights."""

from ovrs.backbones.base import VLM, Prior
from ovrs.backbones.clip import OpenClipVLM
from ovrs.backbones.companion import ClipCompanion, build_companion
from ovrs.backbones.dino import DinoPrior, Dinov3Prior
from ovrs.backbones.registry import PRIOR_REGISTRY, VLM_REGISTRY, build_prior, build_vlm
from ovrs.backbones.rotation import encode_rotations
from ovrs.backbones.weights import CATALOGUE, WeightsError

__all__ = [
    "CATALOGUE",
    "PRIOR_REGISTRY",
    "VLM",
    "VLM_REGISTRY",
    "ClipCompanion",
    "DinoPrior",
    "Dinov3Prior",
    "OpenClipVLM",
    "Prior",
    "WeightsError",
    "build_companion",
    "build_prior",
    "build_vlm",
    "encode_rotations",
]
