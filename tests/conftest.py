"""Tiny towers, a drawn data set and a run of a few iterations, shared by all tests.

Nothing here or below uses the network, and every test finds the catalogues and loggers as the first one did.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Read once, when huggingface_hub is imported: a test that asks for a download fails at once.
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import logger as detectron2_logger

from ovrs.backbones import DinoPrior, OpenClipVLM, build_towers, build_vlm
from ovrs.config import get_cfg
from ovrs.demo import write_scenes
from ovrs.engine import Trainer, argument_parser, begin_run, prepare_run

LOGGERS = ("fvcore", "detectron2", "ovrs", "detectron2.engine.train_loop")

# Tiny tensors gain nothing from threads and lose much where several processes share the cores.
torch.set_num_threads(1)

# A CLIP of 4 image blocks and 2 text blocks; the vocabulary is the tokenizer's.
TINY_CLIP = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 2, "width": 16, "heads": 2},
}
# Twice the CLIP's grid (8 x 8 against 4 x 4), as with the published towers.
TINY_DINO = ["patch_size", 4, "depth", 4, "embed_dim", 24, "num_heads", 2, "img_size", 32]


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - detectron2's augmentations draw from the global generator
    torch.manual_seed(0)


@contextmanager
def own_catalogues() -> Iterator[None]:
    """Take back what is registered within the block."""
    before = [(catalogue, dict(catalogue.data)) for catalogue in (DatasetCatalog, MetadataCatalog)]
    yield
    for catalogue, data in before:
        catalogue.data.clear()
        catalogue.data.update(data)


@contextmanager
def own_loggers() -> Iterator[None]:
    """Take back what starting a run does to loggers: it adds handlers to them and stops their propagation."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.filters[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, filters, propagate, level) in zip(loggers, before, strict=True):
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:], logger.filters[:], logger.propagate = handlers, filters, propagate
        logger.setLevel(level)
    detectron2_logger.setup_logger.cache_clear()
    detectron2_logger._cached_log_stream.cache_clear()


@pytest.fixture(autouse=True)
def _own_catalogues(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    monkeypatch.delenv("OVRS_DATASETS", raising=False)
    with own_catalogues():
        yield


@pytest.fixture(autouse=True)
def results_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this test's evaluations leave their records."""
    folder = tmp_path / "stored results"
    monkeypatch.setenv("OVRS_RESULTS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _own_loggers() -> Iterator[None]:
    with own_loggers():
        yield


@pytest.fixture
def add_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Return a function that adds an entry to the catalogue."""

    def add(name: str = "tiny", kind: str = "towers", **values: object) -> str:
        path = tmp_path / f"catalogue of {name.replace('/', ' ')}.yaml"
        entry = {"title": "A tiny file", "licence": "MIT", "file": f"{name.replace('/', '-')}.pth", **values}
        path.write_text(yaml.safe_dump({kind: {name: entry}}), encoding="utf-8")
        monkeypatch.setenv("OVRS_ZOO", str(path))
        return name

    return add


@pytest.fixture
def tiny_arch(tmp_path: Path) -> Path:
    """The file of a tiny open_clip model configuration, in a folder with a space."""
    return write_tiny_arch(tmp_path)


@pytest.fixture
def tiny_cfg(tiny_arch: Path, tmp_path: Path) -> CfgNode:
    """A full GSNet configuration of tiny sizes, without weights and data sets, for the CPU."""
    return tiny_configuration(tiny_arch, tmp_path / "output")


def write_tiny_arch(folder: Path) -> Path:
    """Write the tiny CLIP's model configuration."""
    path = folder / "tiny models" / "tiny_clip.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(TINY_CLIP), encoding="utf-8")
    return path


def tiny_configuration(arch: Path, output: Path) -> CfgNode:
    """What :func:`tiny_cfg` gives, with a CLIP configuration and an output folder of one's own."""
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.VLM.ARCH = str(arch)
    model.VLM.WEIGHTS = ""
    model.VLM.INPUT_SIZE = 32
    model.PRIOR.ARCH = "vit_tiny_patch16_224"
    model.PRIOR.ARCH_OPTIONS = list(TINY_DINO)
    model.PRIOR.INPUT_SIZE = 32
    gsnet = model.GSNET
    gsnet.HIDDEN_DIM = 32
    gsnet.NUM_LAYERS = 1
    gsnet.NUM_HEADS = 2
    gsnet.WINDOW_SIZE = 2
    gsnet.PAD_CLASSES_TO = 8
    gsnet.DECODER_DIMS = [32, 16]
    gsnet.TAP_DIMS = [16, 8]
    gsnet.TAP_PROJ_DIMS = [8, 4]

    cfg.INPUT.MIN_SIZE_TRAIN = (32,)
    cfg.INPUT.CROP.SIZE = [32, 32]
    cfg.INPUT.PAD_TO = 32
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = 4
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    cfg.TEST.SLIDING_WINDOW.CANVAS = 48
    cfg.TEST.SLIDING_WINDOW.KERNEL = 32
    cfg.SEED = 0
    cfg.OUTPUT_DIR = str(output)
    return cfg


@pytest.fixture
def tiny_vlm(tiny_cfg: CfgNode) -> OpenClipVLM:
    """A CLIP with random weights, patch 8 at 32 pixels: grid 4 x 4, W = 32, C = 16."""
    return build_vlm(tiny_cfg)


@pytest.fixture
def tiny_prior(tiny_cfg: CfgNode) -> DinoPrior:
    """A frozen DINO with random weights, patch 4 at 32 pixels: grid 8 x 8, D = 24."""
    return build_towers(tiny_cfg)["prior"]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and three validation scenes of 64 pixels, in a folder with a space."""
    return write_scenes(tmp_path_factory.mktemp("drawn scenes"), train=4, val=3, size=64)


@pytest.fixture(scope="session")
def trained_once(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a short training run leaves; no test may write there."""
    folder = tmp_path_factory.mktemp("trained once")
    cfg = tiny_configuration(write_tiny_arch(folder), folder / "a run")
    cfg.DATASETS.TRAIN = (f"{scenes / 'scenes.yaml'}:train",)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.SOLVER.MAX_ITER = 2
    start = folder / "start.yaml"
    start.write_text(cfg.dump(), encoding="utf-8")
    args = argument_parser().parse_args(["--config-file", str(start)])
    with own_catalogues(), own_loggers():
        trainer = Trainer(prepare_run(args))
        begin_run(trainer.cfg, args)
        trainer.train()
    return Path(cfg.OUTPUT_DIR)


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a short training run leaves, with ``config.yaml`` and ``model_final.pth``."""
    return Path(shutil.copytree(trained_once, tmp_path / "a run"))
