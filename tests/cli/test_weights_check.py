"""ovrs weights check: which configuration a file fits, and what is missing or surplus."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ovrs.engine import build_model
from ovrs.measure import fitting
from ovrs.zoo import LAYOUTS


@pytest.fixture
def config(tiny_cfg, tmp_path: Path) -> Path:
    """A tiny GSNet's configuration file."""
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 2  # as many as the official names have
    path = tmp_path / "a tiny model.yaml"
    path.write_text(tiny_cfg.dump(), encoding="utf-8")
    return path


@pytest.fixture
def official(config, tiny_cfg, tmp_path: Path) -> Path:
    """Its checkpoint as the original project writes it."""
    state = LAYOUTS["GSNet"].to_official(build_model(tiny_cfg).state_dict())
    torch.save({"model": state, "optimizer": {}, "iteration": 29999}, tmp_path / "model_final.pth")
    return tmp_path / "model_final.pth"


def test_file_that_fits(ovrs, official, config):
    text = ovrs("weights", "check", official, "--config", config)
    assert "a whole model" in text
    assert "iteration 29999" in text
    assert "optimizer" in text
    assert f"Fits exactly: {config}" in text


def test_towers_that_no_shipped_configuration_has(ovrs, official, capsys, monkeypatch):
    monkeypatch.setattr(fitting, "all_configs", lambda: iter(["gsnet/vitb16_landdiscover50k"]))
    with pytest.raises(SystemExit) as caught:
        ovrs("weights", "check", official)
    assert caught.value.code == 1
    assert "No shipped configuration has its towers" in capsys.readouterr().out


def test_another_model_is_told_what_is_missing_and_surplus(ovrs, official, tiny_cfg, config, tmp_path, capsys):
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 1
    other = tmp_path / "one layer.yaml"
    other.write_text(tiny_cfg.dump(), encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        ovrs("weights", "check", official, "--config", other)
    text = capsys.readouterr().out
    assert caught.value.code == 1
    assert f"{other}: " in text
    assert "surplus (head.aggregator.layers.1." in text
    assert "missing" not in text


def test_tower(ovrs, tiny_cfg, tmp_path, capsys):
    model = build_model(tiny_cfg)
    state = {
        name.removeprefix("vlm.clip."): t for name, t in model.state_dict().items() if name.startswith("vlm.clip.")
    }
    torch.save(state, tmp_path / "tower.pt")
    with pytest.raises(SystemExit) as caught:
        ovrs("weights", "check", tmp_path / "tower.pt")
    assert caught.value.code == 1
    assert "a tower" in (text := capsys.readouterr().out)
    assert "No architecture of open_clip's" in text
