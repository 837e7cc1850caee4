"""Label maps become COCO annotations, and a card reads the same labels back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO

from ovrs.cli import main
from ovrs.data import read_labels, resolve_datasets
from ovrs.data.coco_writing import write_coco

NAMES = ["building|house", "road", "tree"]


@pytest.fixture
def village(tmp_path):
    """A card of three labelled images."""
    rng = np.random.default_rng(0)
    for index in range(3):
        labels = rng.integers(0, 3, (20, 30 + index), np.uint8)
        labels[:3] = 255
        for kind, array in (("images", np.dstack([labels] * 3)), ("masks", labels)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"{index}.png")
    card = {"name": "village", "classes": NAMES, "splits": {"all": {"images": "images", "labels": "masks"}}}
    (tmp_path / "village.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    return tmp_path


def labels_of(name):
    (registered,) = resolve_datasets([name])
    card = MetadataCatalog.get(registered).card
    return [read_labels(record["sem_seg_file_name"], card) for record in DatasetCatalog.get(registered)]


def test_exported_labels_are_read_back_bit_for_bit(village, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["datasets", "export", f"{village / 'village.yaml'}:all", "--output", str(village / "notes.json")])
    assert not stop.value.code
    assert "3 images" in capsys.readouterr().out
    card = {
        "name": "from_coco",
        "classes": NAMES,
        "labels": {"coco": "notes.json"},
        "splits": {"all": {"images": "images"}},
    }
    (village / "from_coco.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    before, after = labels_of(f"{village / 'village.yaml'}:all"), labels_of(f"{village / 'from_coco.yaml'}:all")
    assert len(before) == 3
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_file_is_one_that_coco_tools_read(tmp_path):
    labels = np.full((10, 12), 255, np.int32)
    labels[2:5, 3:9] = 1
    path = write_coco(tmp_path / "a folder" / "notes.json", [("a.png", labels), ("b.png", labels.T)], NAMES)
    tool = COCO(str(path))
    assert [category["name"] for category in tool.loadCats(tool.getCatIds())] == NAMES
    first, second = tool.loadAnns(tool.getAnnIds())
    assert (first["category_id"], first["area"], first["bbox"]) == (2, 18, [3.0, 2.0, 6.0, 3.0])
    np.testing.assert_array_equal(tool.annToMask(first), labels == 1)
    np.testing.assert_array_equal(tool.annToMask(second), labels.T == 1)
    assert json.loads(path.read_text(encoding="utf-8"))["images"][1]["height"] == 12
