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

from ovrs.config import get_cfg, load_config
from ovrs.config.loader import changed_keys
from ovrs.engine import build_model
from ovrs.zoo import LAYOUTS, cached_path, entry_of
from ovrs.zoo.state_dict import load_strictly

# Sizes of every head; the numbers of layers stay as the originals' checkpoints have them.
COST_VOLUME = {
    "HIDDEN_DIM": 32, "NUM_HEADS": 2, "WINDOW_SIZE": 2, "PAD_CLASSES_TO": 64, "POOLING_TEST": 1,
    "DECODER_DIMS": [32, 16], "TAP_DIMS": [16, 8], "TAP_PROJ_DIMS": [8, 4],
}  # fmt: skip
HEADS = {
    "GSNET": COST_VOLUME,
    "CAT_SEG": COST_VOLUME,
    "RSKT_SEG": COST_VOLUME,
    "DR_SEG": COST_VOLUME | {"PDGR": {"TOPK": 5, "EDGE_HIDDEN": 8}, "SPSD": {"SELECT": "random", "FILE": ""}},
    "HG_RSOVSSEG": {"GUIDANCE_CHANNELS": [32, 16], "KEY_CHANNELS": 20},
}


@pytest.fixture
def shrink(tiny_cfg: CfgNode, tiny_arch: Path) -> Callable[..., list[str]]:
    """Return a function that gives the overrides that turn a published model into a tiny one on the CPU.

    It is told which towers the model has beside its VLM.
    """
    changed = changed_keys(tiny_cfg, get_cfg())["MODEL"]
    wide = tiny_arch.with_name("wide.json")  # HG-RSOVSSeg's decoder shrinks from the joint width down
    wide.write_text(json.dumps(json.loads(tiny_arch.read_text()) | {"embed_dim": 48}))
    vlm = changed["VLM"] | {"ARCH": str(wide), "ACTIVATION": ""}

    def overrides(*, prior: bool = False, companion: bool = False) -> list[str]:
        model = {"DEVICE": "cpu", "VLM": vlm, **HEADS}
        if prior:
            model["PRIOR"] = changed["PRIOR"] | {"NAME": "DinoPrior", "WEIGHTS": ""}
        if companion:
            model["COMPANION"] = {"ARCH": str(wide), "WEIGHTS": "", "ACTIVATION": "", "INPUT_SIZE": 32}
        content = {
            "MODEL": model,
            "INPUT": {"MIN_SIZE_TEST": 32, "MAX_SIZE_TEST": 64, "SIZE_DIVISIBILITY": 32},
            "DATALOADER": {"NUM_WORKERS": 0},
            "TEST": {"SLIDING_WINDOW": {"CANVAS": 48, "KERNEL": 32}},
        }
        return [word for pair in _flat(content) for word in pair]

    return overrides


@pytest.fixture
def tiny(shrink: Callable[..., list[str]]) -> list[str]:
    """Overrides for GSNet and other models with a prior."""
    return shrink(prior=True)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}".lstrip("."))
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
