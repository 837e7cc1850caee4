"""Vision-language models, self-supervised priors, and their weights."""

from ovrs.backbones.base import VLM, Prior
from ovrs.backbones.clip import OpenClipVLM
from ovrs.backbones.dino import DinoPrior, Dinov3Prior
from ovrs.backbones.registry import PRIOR_REGISTRY, VLM_REGISTRY, build_prior, build_vlm
from ovrs.backbones.weights import CATALOGUE, WeightsError

__all__ = [
    "CATALOGUE",
    "PRIOR_REGISTRY",
    "VLM",
    "VLM_REGISTRY",
    "DinoPrior",
    "Dinov3Prior",
    "OpenClipVLM",
    "Prior",
    "WeightsError",
    "build_prior",
    "build_vlm",
]
