"""Papers on miniature data sets, with tiny towers and checkpoints in the original projects' formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from golden import fill
from miniature_sets import write_set

from ovrs.backbones.state_dict import load_strictly
from ovrs.config import get_cfg, load_config
from ovrs.config.loader import changed_keys
from ovrs.engine import build_model
from ovrs.zoo import LAYOUTS, cached_path, entry_of


@pytest.fixture
def tiny(tiny_cfg: CfgNode) -> list[str]:
    """Overrides that turn any published model into a tiny one on the CPU."""
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 2  # as many as the official names have
    changed = changed_keys(tiny_cfg, get_cfg())
    changed["MODEL"]["PRIOR"] |= {"NAME": "DinoPrior", "WEIGHTS": ""}
    changed["MODEL"]["VLM"]["ACTIVATION"] = ""
    words = ["INPUT.MIN_SIZE_TEST", "0", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"]
    groups = {f"MODEL.{group}": changed["MODEL"][group] for group in ("VLM", "PRIOR", "GSNET")}
    for group, value in {**groups, "TEST.SLIDING_WINDOW": changed["TEST"]["SLIDING_WINDOW"]}.items():
        words += [word for pair in _flat(value, group) for word in pair]
    return words


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}")
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with its own folders of weights, results and data."""
    folder = tmp_path / "work place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OVRS_WEIGHTS", str(folder / "weights"))
    monkeypatch.setenv("OVRS_RESULTS", str(folder / "output" / "results"))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder / "data"))
    return folder


@pytest.fixture
def add_sets(workplace: Path) -> Callable[..., None]:
    """Return a function that writes miniatures of registered data sets."""

    def add(*names: str) -> None:
        for name in names:
            write_set(name, workplace / "data")

    return add


@pytest.fixture
def release(workplace: Path) -> Callable[..., Path]:
    """Return a function that puts a tiny released checkpoint into the cache folder, as its project writes it."""

    def put(name: str, overrides: list[str], seed: int = 3) -> Path:
        entry = entry_of(name)
        model = build_model(load_config(entry.config, overrides))
        filled = fill.filled_state_dict({n: t.shape for n, t in model.state_dict().items()}, seed)
        load_strictly(model, {n: torch.from_numpy(value) for n, value in filled.items()}, "fill")
        state = LAYOUTS[entry.layout].to_official(model.state_dict())
        if entry.layout == "HG-RSOVSSeg":
            content = {"meta": {"iter": 80000, "epoch": 0}, "state_dict": state, "optimizer": {"state": {}}}
        else:
            content = {"model": state, "optimizer": {"state": {}}, "iteration": 29999}
        path = cached_path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)
        return path

    return put
