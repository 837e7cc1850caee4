"""The command ``ovrs``, called in this process as from a command line."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode
from openai_file import as_torchscript, random_state

from ovrs.backbones import build_vlm
from ovrs.cli import main
from ovrs.errors import WeightsError
from ovrs.zoo import default


@pytest.fixture
def ovrs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a command line and return what it prints; it raises ``SystemExit`` where the command fails."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["/somewhere/ovrs", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
        return capsys.readouterr().out

    return run


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that nothing can be fetched on; the empty folder of its weights."""

    def download(address: str, *_: object, **__: object) -> None:
        raise WeightsError(f"{address}: no network.")

    monkeypatch.setenv("OVRS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(sys.modules["ovrs.zoo.fetch"], "download", download)
    return tmp_path / "weights"


@pytest.fixture
def default_model(
    tiny_cfg: CfgNode,
    add_entry: Callable[..., str],
    no_network: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> str:
    """The default model on the tiny towers, without network: a file as OpenAI's lies in the folder of weights."""
    add_entry("tiny-clip", file="ViT-B-16.pt", arch=tiny_cfg.MODEL.VLM.ARCH, activation="quick_gelu")
    no_network.mkdir()
    torch_file = as_torchscript(random_state(build_vlm(tiny_cfg).clip))
    torch_file.save(str(no_network / "ViT-B-16.pt"))
    config = tmp_path / "free.yaml"
    changes = {
        "_BASE_": "training_free/segearth_ov_plain.yaml",
        "MODEL": {"DEVICE": "cpu", "VLM": {"ARCH": tiny_cfg.MODEL.VLM.ARCH, "WEIGHTS": "tiny-clip"}},
        "TEST": {"SLIDING_WINDOW": {"KERNEL": 32}},
    }
    config.write_text(yaml.safe_dump(changes), encoding="utf-8")
    monkeypatch.setattr(default, "MODELS", ((str(config), ("tiny-clip",)),))
    return str(config)


@pytest.fixture
def load_tool_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script of ``tools/`` as from a command line."""

    def run(name: str, *words: object) -> None:
        path = Path(__file__).parents[2] / "tools" / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise

    return run
