"""The two registries of towers and how a configuration builds one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fvcore.common.registry import Registry

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ovrs.backbones.base import VLM, Prior

VLM_REGISTRY = Registry("VLM")
PRIOR_REGISTRY = Registry("PRIOR")


def build_vlm(cfg: CfgNode, *, load_weights: bool = True) -> VLM:
    """Build ``MODEL.VLM``; without ``load_weights`` it stays random, for a checkpoint to fill."""
    return VLM_REGISTRY.get(cfg.MODEL.VLM.NAME)(cfg, load_weights=load_weights)


def build_prior(cfg: CfgNode, *, load_weights: bool = True) -> Prior | None:
    """Build ``MODEL.PRIOR``, or return ``None`` where its name is empty."""
    if not cfg.MODEL.PRIOR.NAME:
        return None
    return PRIOR_REGISTRY.get(cfg.MODEL.PRIOR.NAME)(cfg, load_weights=load_weights)
