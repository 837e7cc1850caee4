"""Records of two models on one data set."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ovrs.evaluation import Result, ResultStore
from ovrs.evaluation.store import Result as StoredResult

CLASSES = ["road", "tree", "water"]


@pytest.fixture
def record(scenes) -> Callable[..., StoredResult]:
    """Return a function that makes a result of a model that was trained on the drawn scenes."""
    base: dict[str, Any] = {
        "dataset": {"name": "town_val", "card": "town", "images": 3, "class_names": CLASSES},
        "vocabulary": {"classes": ["road", "tree|building", "sugar cane"], "templates": ["{}"]},
        "scoring": {"resolution": "original"},
        "weights": {"file": "a.pth", "sha256": "0" * 64},
        "config": {
            "MODEL": {"SEM_SEG_HEAD": {"NAME": "GSNetHead"}},
            "TEST": {"CROP_PADDING": True},
            "DATASETS": {"TRAIN": [f"{scenes / 'scenes.yaml'}:train"], "ROOT": ""},
        },
        "files": {},
        "environment": {"device": "cpu"},
        "date": "2026-01-01",
    }

    def make(weights: str = "a", ious: tuple[float, ...] = (50.0, 40.0, 30.0), **changes: Any) -> StoredResult:
        protocol = copy.deepcopy(base)
        protocol["weights"] = {"file": f"{weights}.pth", "sha256": weights[0] * 64}
        protocol["config"]["TEST"] |= changes.get("test", {})
        protocol["config"]["DATASETS"] |= changes.get("datasets", {})
        protocol["dataset"] |= changes.get("dataset", {})
        names = protocol["dataset"]["class_names"]
        rows = [{"IoU": iou, "ACC": iou, "Precision": iou, "F1": iou + 5} for iou in ious]
        classes = dict(zip(names, rows, strict=True))
        figures = {"mIoU": 40.0, "fwIoU": 1.0, "mACC": 2.0, "aACC": 3.0}
        return Result(protocol["dataset"]["name"], figures, protocol, classes)

    return make


@pytest.fixture
def store(results_folder) -> ResultStore:
    return ResultStore()
