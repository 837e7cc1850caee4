"""Everything that an evaluation figure depends on, written down beside it."""

from __future__ import annotations

import importlib
import platform
from datetime import datetime, timezone
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.backbones.state_dict import sha256_of_file
from ovrs.structures import IGNORE_LABEL
from ovrs.vocabulary import Vocabulary

VERSIONED_MODULES = ("ovrs", "detectron2", "torch", "open_clip", "timm", "numpy")


def describe_protocol(cfg: CfgNode, dataset_name: str, vocabulary: Vocabulary, weights_sha256: str | None) -> dict:
    """Describe the conditions of one evaluation.

    Args:
        cfg: the configuration of the run.
        dataset_name: a registered data set. Its metadata's ``card`` (with ``name`` and ``path``) and ``split``
            are recorded; they are null for a set that was registered without a card.
        vocabulary: the classes and templates that were given to the model.
        weights_sha256: SHA-256 of the file ``MODEL.WEIGHTS``, or None for a model without one.

    Returns:
        A JSON-serialisable dict with the sections ``dataset``, ``vocabulary``, ``scoring``, ``inference``,
        ``model``, ``environment`` and ``date`` (UTC, ISO 8601).
    """
    return {
        "dataset": _describe_dataset(dataset_name),
        "vocabulary": {
            "classes": ["|".join(words) for words in vocabulary.synonyms],
            "templates": list(vocabulary.templates),
            "synonyms": cfg.VOCABULARY.SYNONYMS,
        },
        "scoring": {
            "miou_rule": cfg.TEST.MIOU_RULE,
            "ignore_rule": f"pixels labelled {IGNORE_LABEL} count neither as ground truth nor as prediction",
            "resolution": "original size of the label file",
        },
        "inference": {
            "min_size_test": cfg.INPUT.MIN_SIZE_TEST,
            "max_size_test": cfg.INPUT.MAX_SIZE_TEST,
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
            "sliding_window": _plain(cfg.TEST.SLIDING_WINDOW),
            "precision": _plain(cfg.MODEL.PRECISION),
        },
        "model": {
            "head": cfg.MODEL.SEM_SEG_HEAD.NAME,
            "vlm": _describe_tower(cfg.MODEL.VLM),
            "prior": _describe_tower(cfg.MODEL.PRIOR) if cfg.MODEL.PRIOR.NAME else None,
            "weights": cfg.MODEL.WEIGHTS,
            "weights_sha256": weights_sha256,
        },
        "environment": {
            "device": _device_name(cfg.MODEL.DEVICE),
            "python": platform.python_version(),
            **{name: importlib.import_module(name).__version__ for name in VERSIONED_MODULES},
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _describe_dataset(name: str) -> dict:
    metadata = MetadataCatalog.get(name)
    card = metadata.get("card")
    return {
        "name": name,
        "card": card.name if card else None,
        "card_sha256": sha256_of_file(card.path) if card else None,
        "split": metadata.get("split"),
        "images": len(DatasetCatalog.get(name)),
        "class_names": list(metadata.stuff_classes),
    }


def _describe_tower(node: CfgNode) -> dict:
    return {"name": node.NAME, "arch": node.ARCH, "weights": node.WEIGHTS, "input_size": node.INPUT_SIZE}


def _plain(node: CfgNode) -> dict[str, Any]:
    return {key.lower(): value for key, value in node.items()}


def _device_name(device: str) -> str:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
