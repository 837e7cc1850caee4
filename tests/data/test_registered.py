"""Data sets registered with Detectron2 alone, as plain dicts and metadata: the same checks as a card's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from image_pairs import save_pair
from PIL import Image

from ovrs.data import build_test_loader, build_train_loader, resolve_datasets
from ovrs.data.contact_sheet import contact_sheet
from ovrs.data.inspection import count_classes
from ovrs.errors import DataError
from ovrs.structures import IGNORE_LABEL

LABELS = np.array([[0, 1, 2, 255], [1, 1, 0, 9]], np.uint8)


@pytest.fixture
def mine(tmp_path):
    """Register three pairs under a name with metadata, and return the records."""

    def register(name="mine", labels=LABELS, **metadata):
        for number in range(3):
            save_pair(tmp_path, f"{number}", labels, number)
        records = [
            {
                "file_name": str(tmp_path / f"images/{number}.png"),
                "sem_seg_file_name": str(tmp_path / f"labels/{number}.png"),
                "height": 2,
                "width": 4,
            }
            for number in range(3)
        ]
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(**{"stuff_classes": ["building|house", "road", "other"], **metadata})
        return records

    return register


def test_set_is_resolved_with_the_class_strings_of_its_metadata(mine):
    mine(ignore_label=9, stuff_colors=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert resolve_datasets(["mine", "mine"]) == ["mine", "mine"]
    metadata = MetadataCatalog.get("mine")
    assert metadata.class_strings == ("building|house", "road", "other")
    assert metadata.card.display_names == ("building", "road", "other")
    assert metadata.card.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert metadata.ignore_label == 9  # Detectron2's own tools read the files as they are
    assert metadata.sem_seg_root


@pytest.mark.parametrize("workers", [0, 1])
def test_training_reads_it(mine, cfg, workers):
    mine(ignore_label=9)
    cfg.DATASETS.TRAIN = ("mine",)
    cfg.DATALOADER.NUM_WORKERS = workers
    (sample, _) = next(iter(build_train_loader(cfg)))
    expected = np.where(LABELS == 9, IGNORE_LABEL, LABELS)
    assert torch.equal(sample["sem_seg"], torch.from_numpy(expected.astype(np.int64)))
    assert sample["dataset"] == "mine"


def test_evaluation_and_inspection_read_it(mine, cfg):
    records = mine(ignore_label=9)
    samples = [sample for batch in build_test_loader(cfg, "mine") for sample in batch]
    assert [sample["file_name"] for sample in samples] == [record["file_name"] for record in records]
    assert count_classes("mine").pixels.tolist() == [6, 9, 3]
    assert contact_sheet("mine", 2, count_classes("mine")).ndim == 3


def test_ignored_class_stays_a_text_query(mine):
    mine(labels=LABELS % 3, ignore_label=0)
    resolve_datasets(["mine"])
    card = MetadataCatalog.get("mine").card
    assert card.labelled_classes == (1, 2)
    assert len(card.classes) == 3
    assert count_classes("mine").pixels[0] == 0


def test_images_alone_may_be_registered(mine, cfg):
    for record in mine():
        del record["sem_seg_file_name"]
    (sample, *_) = next(iter(build_test_loader(cfg, "mine")))
    assert "sem_seg" not in sample
    cfg.DATASETS.TRAIN = ("mine",)
    with pytest.raises(DataError, match="mine has no labels"):
        build_train_loader(cfg)


def test_unlisted_values_and_other_sizes_are_refused_as_a_cards(mine, cfg, tmp_path):
    mine(ignore_label=255)
    with pytest.raises(DataError, match=r'MetadataCatalog.get\("mine"\) does not list: 9 \(1 pixels\)'):
        next(iter(build_test_loader(cfg, "mine")))
    save_pair(tmp_path, "0", LABELS % 3)
    Image.new("RGB", (5, 2)).save(tmp_path / "images/0.png")
    with pytest.raises(DataError, match=r"is 5 x 2 .* are 4 x 2"):
        next(iter(build_test_loader(cfg, "mine")))


def test_sizes_of_the_records_are_compared(mine, cfg):
    mine(ignore_label=9)[0].update(height=4, width=2)
    with pytest.raises(DataError, match=r"0\.png is 4 x 2 .* mine says 2 x 4"):
        next(iter(build_test_loader(cfg, "mine")))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"stuff_classes": None}, r"without class strings; add them: MetadataCatalog.get\(\"mine\"\)\.set"),
        ({"stuff_classes": None, "thing_classes": ["a", "b"]}, "labels: .coco: annotations.json"),
        ({"stuff_classes": ["one"]}, "at least 2 classes"),
        ({"stuff_classes": ["a||b", "c"]}, "empty word"),
        ({"ignore_label": -1}, "ignore_label must be"),
        ({"stuff_colors": [[0, 0, 0]]}, "lists 1 colours for 3 classes"),
    ],
)
def test_metadata_that_cannot_be_used_is_refused(mine, metadata, message):
    mine(**metadata)
    with pytest.raises(DataError, match=message):
        resolve_datasets(["mine"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records.clear(), "list of dicts, one per image"),
        (lambda records: records[1].pop("file_name"), "without file_name"),
        (lambda records: records[1].pop("sem_seg_file_name"), r"1 records have no sem_seg_file_name: .*1\.png"),
        (lambda records: records[2].update(sem_seg_file_name="gone.png"), "1 files that are not there: gone.png"),
    ],
)
def test_records_that_cannot_be_used_are_refused(mine, change, message):
    change(mine())
    with pytest.raises(DataError, match=message):
        resolve_datasets(["mine"])


@pytest.mark.parametrize(("key", "kind"), [("annotations", "instances"), ("pan_seg_file_name", "panoptic")])
def test_other_tasks_are_refused_with_the_remedy(mine, key, kind):
    for record in mine():
        del record["sem_seg_file_name"]
        record[key] = []
    with pytest.raises(DataError, match=f"{kind}.*no semantic labels; add sem_seg_file_name"):
        resolve_datasets(["mine"])


def test_panoptic_sets_that_carry_semantic_labels_are_read(mine, cfg):
    for record in mine(ignore_label=9, thing_classes=["car"]):
        record.update(annotations=[], pan_seg_file_name="x.png")
    assert len(list(build_test_loader(cfg, "mine"))) == 3
