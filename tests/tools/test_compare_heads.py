"""tools/compare_heads.py: one row per model, from their reports and from one timing."""

from __future__ import annotations

import json

import pytest
import torch

from ovrs.demo import DemoScenes
from ovrs.engine import CheckpointStore, build_model


@pytest.fixture
def runs(tiny_cfg, scenes, tmp_path):
    """Two untrained models in folders of their own, with reports: mIoUs of 10 and 20, 30 and 40."""
    names = DemoScenes(*(f"{scenes / name}" for name in SPLITS)).names()
    folders = []
    for number, head in enumerate(("CATSegHead", "GSNetHead")):
        folder = tmp_path / head
        tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = head
        CheckpointStore(folder).save("model_final", {"model": build_model(tiny_cfg).state_dict()})
        (folder / "config.yaml").write_text(tiny_cfg.dump(), encoding="utf-8")
        figures = [{"figures": {"mIoU": 20.0 * number + first, "aACC": 50.0}} for first in (10, 20)]
        report = {"datasets": dict(zip(names, figures, strict=True))}
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
        folders.append(folder)
    return folders


SPLITS = ("scenes.yaml:train", "scenes.yaml:val", "scenes_renamed.yaml:val")


@torch.no_grad()
def test_table_has_a_row_per_model_and_the_chance(load_tool, runs, scenes, tmp_path, capsys):
    tool = load_tool("compare_heads")
    demo = DemoScenes(*(f"{scenes / name}" for name in SPLITS))
    tool.print_comparison(runs, demo, tmp_path)
    rows = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in rows] == ["CATSegHead", "GSNetHead", "chance"]
    assert [row["mIoU, trained words"] for row in rows[:2]] == [10, 30]
    assert [row["mIoU, renamed"] for row in rows[:2]] == [20, 40]
    for row, run in zip(rows, runs, strict=False):
        state = torch.load(run / "model_final.pth", weights_only=True)["model"]
        assert row["head, parameters"] == sum(t.numel() for name, t in state.items() if name.startswith("head."))
    assert rows[0]["inference time, relative"] == 1
    assert rows[1]["inference time, relative"] > 0
    assert rows[2]["mIoU, renamed"] == pytest.approx(demo.chance())
    printed = capsys.readouterr().out
    assert (tmp_path / "comparison.md").read_text(encoding="utf-8").strip() in printed
