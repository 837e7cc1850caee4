"""tools/compare_heads.py: one row per model, trained or not, from their reports and from one timing."""

from __future__ import annotations

import json

import pytest
import torch

from ovrs.config.names import shipped_configs
from ovrs.demo import DemoScenes
from ovrs.engine import CheckpointStore, build_model

SPLITS = ("scenes.yaml:train", "scenes.yaml:val", "scenes_renamed.yaml:val")


@pytest.fixture
def demo(scenes):
    return DemoScenes(*(f"{scenes / name}" for name in SPLITS))


@pytest.fixture
def trained(tiny_cfg, demo, tmp_path):
    """Configurations of two heads; their training leaves a report, mIoUs of 10 and 20, 30 and 40. Counts trainings."""
    calls = []

    def train(config, scenes, run, overrides=(), processes=1):
        calls.append(run.name)
        cfg = tiny_cfg.clone()
        cfg.merge_from_file(config)
        CheckpointStore(run).save("model_final", {"model": build_model(cfg).state_dict()})
        (run / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
        number = ("CATSegHead", "GSNetHead").index(run.name)
        figures = [{"figures": {"mIoU": 20.0 * number + first, "aACC": 50.0}} for first in (10, 20)]
        report = {"datasets": dict(zip(scenes.names(), figures, strict=True))}
        (run / "report.json").write_text(json.dumps(report), encoding="utf-8")
        return run

    configs = []
    for head in ("CATSegHead", "GSNetHead"):
        tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = head
        configs.append(tmp_path / f"{head}.yaml")
        configs[-1].write_text(tiny_cfg.dump(), encoding="utf-8")
    return configs, train, calls


@pytest.fixture
def free(tiny_cfg, tmp_path):
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME, tiny_cfg.MODEL.PRIOR.NAME = "ClipAttentionHead", ""
    path = tmp_path / "free.yaml"
    path.write_text(tiny_cfg.dump(), encoding="utf-8")
    return path


@torch.no_grad()
def test_table_has_a_row_per_model_and_the_chance(load_tool, trained, free, demo, tmp_path, monkeypatch, capsys):
    tool, (configs, train, calls) = load_tool("compare_heads"), trained
    monkeypatch.setattr(tool, "train_on_scenes", train)
    output = tmp_path / "output"
    entries = [tool.entry_of(str(config), demo, output / config.stem) for config in (*configs, free)]
    assert calls == ["CATSegHead", "GSNetHead"]
    tool.print_comparison(entries, demo, output)
    rows = json.loads((output / "comparison.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in rows] == ["CATSegHead", "GSNetHead", "free", "chance"]
    assert [row.get("trained") for row in rows] == ["yes", "yes", "no", None]
    assert [row["mIoU, trained words"] for row in rows[:2]] == [10, 30]
    assert [row["mIoU, renamed"] for row in rows[:2]] == [20, 40]
    for row in rows[:2]:
        state = torch.load(output / row["model"] / "model_final.pth", weights_only=True)["model"]
        assert row["head, parameters"] == sum(t.numel() for name, t in state.items() if name.startswith("head."))
    assert rows[2]["head, parameters"] == 0
    report = json.loads((output / "free/report.json").read_text(encoding="utf-8"))["datasets"]
    assert rows[2]["mIoU, trained words"] == report[demo.names()[0]]["figures"]["mIoU"]
    assert rows[2]["mIoU, renamed"] == report[demo.names()[1]]["figures"]["mIoU"]
    assert all(row["giga-MACs per scene"] > 0 for row in rows[:3])
    assert rows[0]["inference time, relative"] == 1
    assert rows[1]["inference time, relative"] > 0
    assert rows[3]["mIoU, renamed"] == pytest.approx(demo.chance())
    printed = capsys.readouterr().out
    assert (output / "comparison.md").read_text(encoding="utf-8").strip() in printed
    assert "so their scores are chance" in printed


def test_scores_without_training_are_the_same_every_time(load_tool, free, demo, tmp_path):
    tool = load_tool("compare_heads")
    first, again = (tool.entry_of(str(free), demo, tmp_path / name).figures for name in ("a", "b"))
    assert first == again


def test_heads_are_chosen_by_name_or_file(run_tool, free, tmp_path):
    run_tool("compare_heads", "--heads", free, "--output", tmp_path / "o", "--train-scenes", 1, "--val-scenes", 1)
    assert [row["model"] for row in json.loads((tmp_path / "o/comparison.json").read_text())] == ["free", "chance"]
    with pytest.raises(SystemExit) as caught:
        run_tool("compare_heads", "--heads", free, "gsnett", "--output", tmp_path / "o")
    assert "demo/gsnet" in caught.value.code


def test_every_demo_configuration_is_compared(load_tool):
    tool = load_tool("compare_heads")
    own = {name.removeprefix("demo/") for name in shipped_configs() if name.startswith("demo/")}
    assert {*tool.TRAINED, *tool.FREE} == own - {"Base-Demo"}
