"""A drawn data set, a tiny configuration that trains on it, and train_net.py inside and outside this process."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.utils import logger as detectron2_logger

from ovrs.data.synthetic import write_scenes
from ovrs.engine import launch_processes

ROOT = Path(__file__).parents[2]
LOGGERS = ("fvcore", "detectron2", "ovrs", "detectron2.engine.train_loop")


@pytest.fixture(autouse=True)
def _own_catalogues() -> Iterator[None]:
    before = [(catalogue, dict(catalogue.data)) for catalogue in (DatasetCatalog, MetadataCatalog)]
    yield
    for catalogue, data in before:
        catalogue.data.clear()
        catalogue.data.update(data)


@pytest.fixture(autouse=True)
def _own_loggers() -> Iterator[None]:
    """Starting a run adds handlers to loggers and stops their propagation; later tests must not see that."""
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


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and three validation scenes of 64 pixels, in a folder with a space."""
    return write_scenes(tmp_path_factory.mktemp("drawn scenes"), train=4, val=3, size=64)


@pytest.fixture
def run_cfg(tiny_cfg: CfgNode, scenes: Path) -> CfgNode:
    """A configuration that trains on the scenes and is tested on them."""
    tiny_cfg.DATASETS.TRAIN = (f"{scenes / 'scenes.yaml'}:train",)
    tiny_cfg.DATASETS.TEST = (f"{scenes / 'scenes.yaml'}:val",)
    tiny_cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    return tiny_cfg


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[CfgNode], Path]:
    """Write a configuration as YAML and return the file."""

    def write(cfg: CfgNode) -> Path:
        path = tmp_path / "a config.yaml"
        path.write_text(cfg.dump(), encoding="utf-8")
        return path

    return write


@pytest.fixture
def train_net(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Run train_net.py in this process and return the message that it ends with; empty if it succeeds."""
    spec = importlib.util.spec_from_file_location("train_net", ROOT / "train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments: object) -> str:
        args = default_argument_parser().parse_args([str(argument) for argument in arguments])
        message = ""
        try:
            launch_processes(module.main, args)
        except SystemExit as error:
            message = str(error.code)
        output = capsys.readouterr()
        assert "Traceback" not in output.out + output.err
        return message

    return run


@pytest.fixture
def start_train_net() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start train_net.py as a process of its own, without a GPU and with one thread."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    processes = []

    def start(*arguments: object) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "train_net.py"), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
