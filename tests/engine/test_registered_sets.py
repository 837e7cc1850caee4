"""Training and evaluation on data sets that were registered with Detectron2's catalogues alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.config import load_config
from ovrs.demo import CLASSES
from ovrs.engine import argument_parser, train_or_evaluate


@pytest.fixture
def registered(scenes: Path) -> None:
    """Register the scenes as plain dicts."""
    for split in ("train", "val"):
        records = [
            {"file_name": str(image), "sem_seg_file_name": str(scenes / "labels" / split / image.name)}
            | {"height": 64, "width": 64}
            for image in sorted((scenes / "images" / split).iterdir())
        ]
        DatasetCatalog.register(f"mine_{split}", lambda records=records: records)
        MetadataCatalog.get(f"mine_{split}").set(stuff_classes=list(CLASSES), ignore_label=255)


def test_a_registered_set_is_trained_on_and_scored_as_the_card_of_the_same_files(
    registered, run_cfg: CfgNode, scenes: Path, write_config, tmp_path
):
    run_cfg.SOLVER.MAX_ITER = 2
    start = write_config(run_cfg)
    figures = {}
    for name, train, val in (
        ("plain", "mine_train", "mine_val"),
        ("card", f"{scenes / 'scenes.yaml'}:train", f"{scenes / 'scenes.yaml'}:val"),
    ):
        output = tmp_path / name
        options = ["DATASETS.TRAIN", json.dumps([train]), "DATASETS.TEST", json.dumps([val]), "OUTPUT_DIR", str(output)]
        train_or_evaluate(argument_parser().parse_args(["--config-file", str(start), *options]))
        (entry,) = json.loads((output / "report.json").read_text())["datasets"].values()
        figures[name] = entry["figures"]
    assert figures["plain"] == figures["card"]
    assert load_config(tmp_path / "plain/config.yaml", []).DATASETS.TRAIN == ("mine_train",)
