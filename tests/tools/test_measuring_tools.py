"""The two tools that measure a model, as their users call them."""

import json
from pathlib import Path

import pytest

from ovrs.measure import benchmark


@pytest.fixture
def config(tiny_cfg, tmp_path) -> Path:
    path = tmp_path / "a config.yaml"
    path.write_text(tiny_cfg.dump(), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["analyze_model", "benchmark"])
def test_help_shows_examples(run_tool, capsys, name):
    with pytest.raises(SystemExit) as caught:
        run_tool(name, "--help")
    assert caught.value.code == 0
    assert f"python tools/{name}.py --config-file" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["analyze_model", "benchmark"])
def test_a_mistake_ends_in_a_message(run_tool, config, name):
    with pytest.raises(SystemExit) as caught:
        run_tool(name, "--config-file", config, "MODEL.SEM_SEG_HEAD.NAM", "GSNetHead")
    assert f"{name}.py: command line: unknown key MODEL.SEM_SEG_HEAD.NAM" in caught.value.code


def test_analyze_model_prints_a_table_and_writes_json(run_tool, config, tmp_path):
    target = tmp_path / "new folder" / "analysis.json"
    keys = ("TEST.SLIDING_WINDOW.ENABLED", False)
    output = run_tool(
        "analyze_model", "--config-file", config, "--classes", 3, "--size", 64, 64, "--json", target, *keys
    )
    content = json.loads(target.read_text())
    assert (content["classes"], content["passes"]) == (3, 1)
    assert f"{content['parameters']['model']['total']:,}" in output
    assert content["image_macs_text_cached"] == sum(content["macs"].values()) - content["macs"]["text"]


def test_benchmark_prints_a_table_and_writes_json(run_tool, config, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_in_new_process", lambda *_: benchmark.MIB)
    target = tmp_path / "speed.json"
    numbers = ("--precision", "fp32", "--classes", 3, "--images", 1, "--size", 64, 64, "--repeat", 1)
    keys = ("TEST.SLIDING_WINDOW.ENABLED", False)
    output = run_tool("benchmark", "--config-file", config, *numbers, "--json", target, *keys)
    content = json.loads(target.read_text())
    assert content["weights"] == "random"
    assert [entry["precision"] for entry in content["measurements"]] == ["fp32"]
    assert content["measurements"][0]["images_per_second"] > 0
    assert "same labels %" in output
