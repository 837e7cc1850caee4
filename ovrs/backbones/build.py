"""The towers that a configuration describes, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovrs.backbones.base import PRIOR_REGISTRY, VLM, VLM_REGISTRY, Tower
from ovrs.backbones.companion import ClipCompanion
from ovrs.errors import choose

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from fvcore.common.registry import Registry


def build_towers(cfg: CfgNode, *, load_weights: bool = True) -> dict[str, Tower]:
    """Build ``vlm``, and ``prior`` and ``companion`` where the configuration has them.

    Args:
        cfg: a full configuration; ``MODEL.VLM``, ``MODEL.PRIOR`` (none where its ``NAME`` is empty) and
            ``MODEL.COMPANION`` (none where its ``ARCH`` is empty) are read.
        load_weights: whether weights are fetched; otherwise towers stay random, for a checkpoint to fill.

    Raises:
        ConfigError: unknown tower, or keys that contradict each other.
        WeightsError: weights that cannot be found, read or fitted.
    """
    present = {"vlm": True, "prior": cfg.MODEL.PRIOR.NAME, "companion": cfg.MODEL.COMPANION.ARCH}
    return {name: build_tower(name, cfg, load_weights=load_weights) for name, there in present.items() if there}


def build_tower(name: str, cfg: CfgNode, *, load_weights: bool = True) -> Tower:
    """Build one tower by its name; see :func:`build_towers`."""
    if name == "vlm":
        return build_vlm(cfg, load_weights=load_weights)
    if name == "companion":
        return ClipCompanion(cfg, load_weights=load_weights)
    return _registered(PRIOR_REGISTRY, "MODEL.PRIOR.NAME", cfg.MODEL.PRIOR.NAME)(cfg, load_weights=load_weights)


def build_vlm(cfg: CfgNode, *, load_weights: bool = True) -> VLM:
    """Build ``MODEL.VLM`` alone; see :func:`build_towers`."""
    return _registered(VLM_REGISTRY, "MODEL.VLM.NAME", cfg.MODEL.VLM.NAME)(cfg, load_weights=load_weights)


def _registered(registry: Registry, key: str, name: str) -> type[Tower]:
    return registry.get(choose(key, name, sorted(known for known, _ in registry)))
