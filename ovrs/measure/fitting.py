"""Which shipped configurations a weights file fits, by the names and shapes of its tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from ovrs.config import list_papers, load_config, load_paper
from ovrs.config.loader import plain
from ovrs.config.names import shipped_configs
from ovrs.engine.setup import build_model
from ovrs.zoo.identify import Fit, Identity, Shapes, compare, shapes_of, tower_archs

# Beginnings of keys below MODEL that decide no tensor's name or shape.
_SHAPELESS = ("DEVICE", "WEIGHTS", "PRECISION", "LOSS", "FINETUNE", "ACTIVATION", "PIXEL_")
# Where a segmenter keeps its towers, and the group of the configuration that chooses them.
_TOWERS = {"vlm.clip.": "VLM", "prior.vit.": "PRIOR"}


def fitting_configs(identity: Identity, names: Sequence[str] = ()) -> list[tuple[str, Fit]]:
    """Compare a segmenter's tensors with configurations, the best fit first.

    Args:
        identity: what :func:`ovrs.zoo.identify` found out about the file.
        names: of configurations; if there are none, all shipped ones and all rows of papers that have its towers.

    Raises:
        ConfigError: a named configuration that cannot be built.
    """
    chosen = {name: load_config(name) for name in names or all_configs()}
    if not names:
        chosen = _with_towers(chosen, identity.tensors)
    fits = []
    by_model: dict[str, Fit] = {}
    for name, cfg in chosen.items():
        key = json.dumps(_shaping(plain(cfg.MODEL)), sort_keys=True)
        if key not in by_model:
            by_model[key] = compare(identity.tensors, model_shapes(cfg), identity.frozen)
        fits.append((name, by_model[key]))
    return sorted(fits, key=lambda item: item[1].distance)


def _with_towers(configs: dict[str, CfgNode], tensors: Shapes) -> dict[str, CfgNode]:
    """Leave out what has other towers: building all would take minutes, and none of it fits."""
    for stem, group in _TOWERS.items():
        inside = {name.removeprefix(stem): shape for name, shape in tensors.items() if name.startswith(stem)}
        archs = tower_archs(inside)
        configs = {name: cfg for name, cfg in configs.items() if not inside or cfg.MODEL[group].ARCH in archs}
    return configs


def _shaping(node: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _shaping(value) if isinstance(value, Mapping) else value
        for key, value in node.items()
        if not key.startswith(_SHAPELESS)
    }


def model_shapes(cfg: CfgNode) -> Shapes:
    """Return the shapes of a configuration's model by tensor name; nothing is fetched."""
    cfg = cfg.clone()
    cfg.defrost()
    # Architectures by file are the small ones, and may have text towers that load weights of their own.
    device = "cpu" if Path(cfg.MODEL.VLM.ARCH).is_file() else "meta"
    cfg.MODEL.DEVICE = device
    with torch.device(device):
        return shapes_of(build_model(cfg, load_towers=False).state_dict())


def all_configs() -> Iterator[str]:
    """Yield the names of all shipped models: recipes, then the rows of papers."""
    yield from (
        name for name in shipped_configs() if not name.startswith(("papers/", "Base-")) and "/Base-" not in name
    )
    for paper in map(load_paper, list_papers()):
        for table in paper.tables.values():
            yield from (
                f"papers/{paper.key}:{table.key}/{row.key}" for row in table.rows.values() if row.config is not None
            )
