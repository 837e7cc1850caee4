"""A data set that a module of the user's registers, named by IMPORTS: trained on and evaluated like any other."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from PIL import Image

from ovrs.engine import argument_parser, launch_processes, train_or_evaluate

REGISTRATION = """
    from pathlib import Path
    from detectron2.data import DatasetCatalog, MetadataCatalog

    HERE = Path(__file__).parent

    def load():
        return [
            {"file_name": str(file), "sem_seg_file_name": str(file.with_name(file.stem + "_mask.png")),
             "height": 40, "width": 48}
            for file in sorted(HERE.glob("?.png"))
        ]

    if "my_village" not in DatasetCatalog:
        DatasetCatalog.register("my_village", load)
        MetadataCatalog.get("my_village").set(
            stuff_classes=["building|house", "road", "tree"], ignore_label=7,
            stuff_colors=[(200, 0, 0), (90, 90, 90), (0, 120, 0)],
        )
"""


@pytest.fixture
def village(tiny_cfg: CfgNode, tmp_path: Path) -> Path:
    """A folder with four labelled images, a module that registers them, and a configuration that names it."""
    rng = np.random.default_rng(0)
    for index in range(4):
        labels = rng.integers(0, 3, (40, 48), np.uint8)
        pixels = labels[..., None] * 80 + rng.integers(0, 40, (40, 48, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{index}.png")
        labels[:5] = 7
        Image.fromarray(labels).save(tmp_path / f"{index}_mask.png")
    (tmp_path / "my_sets.py").write_text(textwrap.dedent(REGISTRATION), encoding="utf-8")
    tiny_cfg.SOLVER.MAX_ITER = 1
    (tmp_path / "tiny.yaml").write_text(tiny_cfg.dump(), encoding="utf-8")
    (tmp_path / "village.yaml").write_text(
        "_BASE_: tiny.yaml\nIMPORTS: [my_sets.py]\nDATASETS: {TRAIN: [my_village], TEST: [my_village]}\n",
        encoding="utf-8",
    )
    return tmp_path


def run(village: Path, output: str, *words: str) -> dict:
    """What train_net.py does; returns the figures of the data set."""
    folder = village / output
    args = argument_parser().parse_args(["--config-file", str(village / "village.yaml"), *words])
    args.opts += ["OUTPUT_DIR", str(folder)]
    launch_processes(train_or_evaluate, args)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report["datasets"]["my_village"]["classes"]


def test_registered_set_trains_and_is_evaluated_with_its_own_ignore_label(village: Path):
    trained = run(village, "run")
    assert list(trained) == ["building|house", "road", "tree"]
    again = run(village, "again", "--eval-only", "MODEL.WEIGHTS", str(village / "run" / "model_final.pth"))
    assert again == trained


def test_label_that_no_class_has_is_refused_with_the_file(village: Path):
    mask = village / "2_mask.png"
    Image.fromarray(np.full((40, 48), 9, np.uint8)).save(mask)
    with pytest.raises(SystemExit) as stop:
        run(village, "run", "SOLVER.IMS_PER_BATCH", "4")
    assert "2_mask.png" in str(stop.value)
    assert "9" in str(stop.value)
