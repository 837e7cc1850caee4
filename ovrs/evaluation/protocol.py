"""Everything that an evaluation figure depends on, written down beside it."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron2_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

from ovrs.config import get_cfg
from ovrs.inference import resolve_device
from ovrs.structures import IGNORE_LABEL
from ovrs.vocabulary import Vocabulary
from ovrs.zoo import find
from ovrs.zoo.state_dict import sha256_of_file

VERSIONED_MODULES = ("ovrs", "detectron2", "torch", "open_clip", "timm", "numpy")
# Groups and keys of the configuration that no figure of an evaluation depends on; all others are written down.
RUN_ONLY = ("SOLVER", "DATALOADER", "OUTPUT_DIR", "VERSION", "VIS_PERIOD")
# What is written down for people, but does not tell results of one set apart: where things lie, other sets, the speed.
NOT_IN_KEY = ("DATASETS", "SEED", "MODEL.DEVICE", "MODEL.WEIGHTS", "TEST.AVERAGE", "TEST.EVAL_PERIOD", "TEST.OUTPUT")
NOT_IN_KEY += ("MODEL.FEATURE_CACHE", "MODEL.PRECISION.WEIGHT_COPIES", "TEST.CUDA_GRAPHS")


def describe_protocol(cfg: CfgNode, dataset_name: str, vocabulary: Vocabulary, weights_sha256: str | None) -> dict:
    """Describe the conditions of one evaluation.

    Args:
        cfg: the configuration of the run. It is stored whole but for ``RUN_ONLY``, keys of Detectron2 at Detectron2's
            defaults, and the options of other heads; so no key can be forgotten.
        dataset_name: a registered data set. Its metadata's ``card`` (with ``name`` and ``path``) and ``split``
            are recorded; a set that other code has registered has no file of a card, so no checksum of it.
        vocabulary: the classes and templates that were given to the model.
        weights_sha256: SHA-256 of the file ``MODEL.WEIGHTS``, or None for a model without one.

    Returns:
        A JSON-serialisable dict with the sections ``dataset``, ``vocabulary``, ``scoring``, ``weights``, ``config``,
        ``files`` ({key: SHA-256} of every other file that the configuration names), ``environment`` and ``date`` (UTC,
        ISO 8601).
    """
    config = _plain(_without_others(cfg))
    return {
        "dataset": _describe_dataset(dataset_name),
        "vocabulary": {
            "classes": ["|".join(words) for words in vocabulary.synonyms],
            "templates": list(vocabulary.templates),
        },
        "scoring": {
            "ignore_rule": f"pixels labelled {IGNORE_LABEL} count neither as ground truth nor as prediction",
            "resolution": "original size of the label file",
        },
        "weights": {"file": cfg.MODEL.WEIGHTS, "sha256": weights_sha256},
        "config": config,
        "files": _files(config),
        "environment": {
            "device": _device_name(cfg.MODEL.DEVICE),
            "python": platform.python_version(),
            **{name: importlib.import_module(name).__version__ for name in VERSIONED_MODULES},
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def protocol_key(protocol: Mapping[str, Any]) -> str:
    """Return a digest that is the same for evaluations that must give the same figures, on any machine and day.

    Args:
        protocol: what :func:`describe_protocol` returned, or JSON gave back.
    """
    return hashlib.sha256(json.dumps(protocol_values(protocol), sort_keys=True).encode()).hexdigest()


def protocol_values(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the figures of an evaluation, flat: ``dataset.name``, ``weights``, ``TEST.MIOU_RULE`` ….

    Files count by their content, wherever they lie; the environment, the date and ``NOT_IN_KEY`` do not count.

    Args:
        protocol: what :func:`describe_protocol` returned, or JSON gave back.
    """
    files = protocol["files"]
    values = {
        key: files.get(key, value) for key, value in _leaves(protocol["config"]) if not key.startswith(NOT_IN_KEY)
    }
    parts = {name: protocol[name] for name in ("dataset", "vocabulary", "scoring")}
    return {**dict(_leaves(parts)), "weights": protocol["weights"]["sha256"], **values}


def _without_others(cfg: CfgNode) -> CfgNode:
    """Return the configuration without ``RUN_ONLY``, defaults of Detectron2, and other heads' options."""
    kept = cfg.clone()
    kept.defrost()
    for key in RUN_ONLY:
        kept.pop(key, None)
    _drop_defaults(kept, get_cfg(), detectron2_cfg())
    own = getattr(SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME), "group", None)
    for group in {getattr(head, "group", None) for _, head in SEM_SEG_HEADS_REGISTRY} - {own}:
        kept.MODEL.pop(group, None)
    return kept


def _drop_defaults(node: CfgNode, ours: CfgNode, theirs: CfgNode) -> None:
    """Take away the keys at Detectron2's default, where that is ours too: most are of models that are not here."""
    for key, value in list(node.items()):
        if isinstance(value, CfgNode) and key in theirs:
            _drop_defaults(value, ours[key], theirs[key])
            if not value:
                del node[key]
        elif key in theirs and value == ours[key] == theirs[key]:
            del node[key]


def _plain(value: Any) -> Any:
    """Return nested nodes and tuples as dicts and lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (full key, value) of everything in nested dicts and lists, ``KEY[index]`` for the members of a list."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{key}[{index}]")
    else:
        yield key, value


@functools.lru_cache(maxsize=64)
def _sha256(path: str, _written: int) -> str:
    """The digest of a file as it was written last: several data sets share the files of one configuration."""
    return sha256_of_file(path)


def _files(config: Mapping[str, Any]) -> dict[str, str]:
    """Return {key: SHA-256} of every file that a key names, by path or, where the sum is known, in the catalogue."""
    files = {}
    for key, value in _leaves(config):
        if not isinstance(value, str) or key == "MODEL.WEIGHTS":
            continue
        if os.path.isfile(value):
            files[key] = _sha256(value, os.stat(value).st_mtime_ns)
        elif (entry := find(value)) and entry.sha256:
            files[key] = entry.sha256
    return files


def _describe_dataset(name: str) -> dict:
    metadata = MetadataCatalog.get(name)
    card = metadata.get("card")
    return {
        "name": name,
        "card": card.name if card else None,
        "card_sha256": sha256_of_file(card.path) if card and card.path.is_file() else None,
        "split": metadata.get("split"),
        "images": len(DatasetCatalog.get(name)),
        "class_names": list(metadata.stuff_classes),
    }


def _device_name(device: str) -> str:
    device = resolve_device(device, fall_back=True)
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
