"""Models that have nothing to train: evaluated without a checkpoint, refused by the trainer."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from ovrs.engine import train_or_evaluate
from ovrs.errors import ConfigError


@pytest.fixture
def arguments(tiny_cfg: CfgNode, scenes: Path, tmp_path: Path) -> Namespace:
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = "ClipAttentionHead"
    tiny_cfg.MODEL.PRIOR.NAME = ""
    tiny_cfg.DATASETS.TEST = (f"{scenes / 'scenes.yaml'}:val",)
    path = tmp_path / "free.yaml"
    path.write_text(tiny_cfg.dump(), encoding="utf-8")
    return Namespace(
        config_file=str(path), opts=[], eval_only=True, resume=False, resume_changed=False, overwrite=False
    )


def test_evaluation_needs_no_checkpoint_and_says_so(arguments: Namespace, tiny_cfg: CfgNode):
    train_or_evaluate(arguments)
    report = json.loads(Path(tiny_cfg.OUTPUT_DIR, "report.json").read_text(encoding="utf-8"))
    assert "untrained" in json.dumps(report)


def test_training_is_refused(arguments: Namespace, tiny_cfg: CfgNode, scenes: Path):
    arguments.eval_only = False
    arguments.opts = ["DATASETS.TRAIN", f"['{scenes / 'scenes.yaml'}:train']"]
    with pytest.raises(ConfigError, match="nothing to train"):
        train_or_evaluate(arguments)


def test_a_head_that_is_trained_still_needs_its_checkpoint(arguments: Namespace):
    arguments.opts = ["MODEL.SEM_SEG_HEAD.NAME", "CATSegHead"]
    with pytest.raises(ConfigError, match=r"MODEL\.WEIGHTS"):
        train_or_evaluate(arguments)
