"""COCO annotations as labels: polygons and run lengths become class indices, by the rule that the card's docs state."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from ovrs.data import build_train_loader, read_pair, resolve_datasets
from ovrs.data.card import load_card
from ovrs.data.coco import read_coco
from ovrs.data.encodings import CocoEncoding
from ovrs.data.inspection import count_classes
from ovrs.data.reading import read_size
from ovrs.errors import DataError
from ovrs.structures import IGNORE_LABEL

SHAPE = (12, 20)
CATEGORIES = [{"id": 7, "name": "building"}, {"id": 3, "name": "road"}, {"id": 9, "name": "other"}]


def box(top, left, bottom, right):
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask, compressed):
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        return {"size": code["size"], "counts": code["counts"].decode()}
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[0] else [0, *counts]}


@pytest.fixture
def coco(write_card):
    """Write images, annotations [(category, segmentation), ...] per image, and a card; return the card's path."""

    def write(annotations, labels=None, **changes):
        card = write_card(
            labels={"coco": "notes.json", **(labels or {})},
            **{"splits": {"train": {"images": "images"}}, "image_suffix": [".jpg", ".png"], **changes},
        )
        (card.parent / "images").mkdir(exist_ok=True)
        images, entries = [], []
        for number, of_image in enumerate(annotations):
            name = f"{number}.{'png' if number % 2 else 'jpg'}"
            Image.new("RGB", SHAPE[::-1], (number, 0, 0)).save(card.parent / "images" / name)
            images.append({"id": 100 - number, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]})
            for category, shape in of_image:
                entry = {"id": len(entries), "image_id": 100 - number, "category_id": category, "segmentation": shape}
                entries.append(entry)
        content = {"images": images, "categories": CATEGORIES, "annotations": entries}
        (card.parent / "notes.json").write_text(json.dumps(content))
        read_coco.cache_clear()
        return card

    return write


def test_size_is_known_without_painting(coco):
    (name,) = resolve_datasets([str(coco([[(7, box(0, 0, 4, 4))]]))])
    (record,) = DatasetCatalog.get(name)
    assert read_size(record["sem_seg_file_name"]) == read_size(record["file_name"]) == SHAPE


def labels_of(path, number=0):
    (name,) = resolve_datasets([str(path)])
    record = DatasetCatalog.get(name)[number]
    return read_pair(record["file_name"], record["sem_seg_file_name"], MetadataCatalog.get(name).card)[1]


@pytest.mark.parametrize("form", ["polygon", "compressed", "counts"])
def test_every_form_of_a_shape_is_painted(coco, form):
    mask = np.zeros(SHAPE, bool)
    mask[2:8, 3:10] = True
    shape = box(2, 3, 8, 10) if form == "polygon" else run_lengths(mask, form == "compressed")
    expected = np.where(mask, 0, IGNORE_LABEL)
    np.testing.assert_array_equal(labels_of(coco([[(7, shape)]])), expected)


@pytest.mark.parametrize("order", [1, -1])
def test_smaller_shape_is_on_top_whatever_the_order(coco, order):
    annotations = [(3, box(0, 0, 12, 20)), (7, box(2, 2, 6, 6))][::order]
    labels = labels_of(coco([annotations]))
    expected = np.full(SHAPE, 1)
    expected[2:6, 2:6] = 0
    np.testing.assert_array_equal(labels, expected)


def test_later_one_of_equal_shapes_is_on_top(coco):
    assert set(labels_of(coco([[(3, box(0, 0, 4, 4)), (7, box(0, 0, 4, 4))]])).ravel()) == {0, IGNORE_LABEL}


def test_background_and_ignored_categories(coco):
    labels = {"background": "other", "categories": {"road": None}}
    found = labels_of(coco([[(3, box(0, 0, 4, 4)), (7, box(6, 6, 8, 8))]], labels))
    assert (found[0, 0], found[6, 6], found[11, 19]) == (IGNORE_LABEL, 0, 2)


def test_categories_of_other_names_and_splits_with_files_of_their_own(coco):
    path = coco([[(3, box(0, 0, 4, 4))]], {"categories": {"street": "road"}})
    notes = json.loads((path.parent / "notes.json").read_text())
    notes["categories"][1]["name"] = "street"
    (path.parent / "mine.json").write_text(json.dumps(notes))
    split = {"images": "images", "labels": "mine.json"}
    path.write_text(path.read_text().replace("images: images", "images: images\n    labels: mine.json"))
    assert load_card(path).splits["train"].labels == split["labels"]
    assert labels_of(path)[0, 0] == 1


def test_images_without_annotation_are_background(coco):
    path = coco([[], [(7, box(0, 0, 1, 1))]], {"background": "other"})
    assert set(labels_of(path, 0).ravel()) == {2}
    assert count_classes(resolve_datasets([str(path)])[0]).pixels.tolist() == [1, 0, 2 * 12 * 20 - 1]


def test_training_and_metadata(coco, cfg):
    path = coco([[(7, box(0, 0, 12, 20))], [(3, box(0, 0, 12, 10))]])
    card = load_card(path)
    assert isinstance(card.labels, CocoEncoding)
    assert card.labelled_classes == (0, 1, 2)
    cfg.DATASETS.TRAIN = (str(path),)
    batch = next(iter(build_train_loader(cfg)))
    assert {label for sample in batch for label in sample["sem_seg"].unique().tolist()} <= {0, 1, IGNORE_LABEL}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda notes: notes["categories"][0].update(name="hut"),
            r"the category 'hut', which is no class",
        ),
        (lambda notes: notes["annotations"][0].pop("segmentation"), "has no segmentation, only a box"),
        (lambda notes: notes["annotations"][0].update(segmentation={"counts": "x"}), "broken segmentation"),
        (lambda notes: notes["annotations"][0].update(segmentation={"size": [1, 1], "counts": [1]}), r"\[1, 1\]"),
        (lambda notes: notes["images"][0].update(height=13), "0.jpg is 20 x 12 .* are 20 x 13"),
        (lambda notes: notes["images"][0].update(file_name="gone.jpg"), "1 of 1 images .* not there: .*gone.jpg"),
        (lambda notes: notes["images"].clear(), "lists no image"),
        (lambda notes: notes.pop("annotations"), "not of COCO's form"),
        (lambda notes: notes["images"][0].pop("width"), "not of COCO's form"),
    ],
)
def test_bad_annotations_are_named(coco, change, message):
    path = coco([[(7, box(0, 0, 4, 4))]])
    notes = json.loads((path.parent / "notes.json").read_text())
    change(notes)
    (path.parent / "notes.json").write_text(json.dumps(notes))
    read_coco.cache_clear()
    with pytest.raises(DataError, match=rf"notes\.json.*{message}|{message}"):
        labels_of(path)


def test_missing_and_broken_files_are_named(coco):
    path = coco([[]])
    for content, message in (("{", "no readable COCO file"), (None, "there is no COCO file")):
        (path.parent / "notes.json").unlink()
        if content:
            (path.parent / "notes.json").write_text(content)
        read_coco.cache_clear()
        with pytest.raises(DataError, match=message):
            labels_of(path)
