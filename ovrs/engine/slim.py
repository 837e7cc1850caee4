"""Checkpoints without what never trained: frozen parts of towers are named with their checksum, not stored.

A slim checkpoint has, beside ``model``, the entry ``frozen``: for every tower with frozen tensors {name: its group of
configuration keys, and the SHA-256 of these tensors}. Reading it builds these towers once more from their own weights
and refuses others than those that the run had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from torch import Tensor, nn

from ovrs.backbones import build_tower
from ovrs.config import get_cfg
from ovrs.errors import WeightsError
from ovrs.zoo.identify import FROZEN
from ovrs.zoo.state_dict import digest, read_checkpoint, read_state_dict


def frozen_names(model: nn.Module, towers: Iterable[str], cfg: CfgNode) -> dict[str, list[str]]:
    """Return {tower: names in the model's state} of what a checkpoint of this run can leave out.

    Only towers that the run took from their own weights: a random one could not be built again, and one that
    ``MODEL.WEIGHTS`` filled would be another one.
    """
    if cfg.MODEL.WEIGHTS:
        return {}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    own = {tower: f"{tower}." for tower in towers if cfg.MODEL[tower.upper()].WEIGHTS}
    state = [name for name in model.state_dict() if name not in trained]
    found = {tower: [name for name in state if name.startswith(prefix)] for tower, prefix in own.items()}
    return {tower: names for tower, names in found.items() if names}


def identity(state: Mapping[str, Tensor], names: Mapping[str, list[str]], cfg: CfgNode) -> dict[str, dict[str, Any]]:
    """Return the entry ``frozen`` of a checkpoint.

    Args:
        state: of the model.
        names: what :func:`frozen_names` returned.
        cfg: the run's configuration.
    """
    nodes = yaml.safe_load(cfg.MODEL.dump())
    return {
        tower: {"config": nodes[tower.upper()], "sha256": digest({name: state[name] for name in members})}
        for tower, members in names.items()
    }


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file as :func:`read_state_dict`; a slim checkpoint is completed.

    Raises:
        WeightsError: as there, or a tower that is not the one the checkpoint was trained with.
    """
    state = read_state_dict(path)
    content = read_checkpoint(Path(path)) if any(name.startswith("head.") for name in state) else {}
    return completed(state, content.get(FROZEN, {}), path)


def completed(state: Mapping[str, Tensor], frozen: Mapping[str, Any], source: str | Path) -> dict[str, Tensor]:
    """Return a slim checkpoint's tensors together with those of its frozen towers.

    Args:
        state: ``model`` of the checkpoint.
        frozen: its entry ``frozen``.
        source: the file, for messages.

    Raises:
        WeightsError: a tower that cannot be found, or is not the one the checkpoint was trained with.
    """
    if not frozen:
        return dict(state)
    whole = dict(state)
    for tower, entry in frozen.items():
        missing = {name: tensor for name, tensor in _tower_state(tower, entry["config"]).items() if name not in state}
        if digest(missing) != entry["sha256"]:
            raise WeightsError(
                f"{source} was trained with another {tower} than {entry['config']['WEIGHTS']!r} is now: the checksum "
                f"of its frozen tensors differs. Put the file back that MODEL.{tower.upper()}.WEIGHTS named then."
            )
        whole |= missing
    return whole


def _tower_state(name: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Build one tower from its own weights and return its state under the model's names."""
    cfg = get_cfg()
    cfg.MODEL[name.upper()].merge_from_other_cfg(CfgNode(dict(config)))
    with torch.random.fork_rng(devices=[]):
        tower = build_tower(name, cfg)
    return {f"{name}.{key}": tensor for key, tensor in tower.state_dict().items()}
