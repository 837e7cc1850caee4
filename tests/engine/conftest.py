"""A tiny configuration that trains on the drawn scenes, and train_net.py inside and outside this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from ovrs.engine import argument_parser, launch_processes, train_or_evaluate

ROOT = Path(__file__).parents[2]


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

    def run(*arguments: object) -> str:
        args = argument_parser().parse_args([str(argument) for argument in arguments])
        message = ""
        try:
            launch_processes(train_or_evaluate, args)
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
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
