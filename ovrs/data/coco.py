"""Labels out of COCO annotation files."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ovrs.data.card import DatasetCard
from ovrs.data.encodings import CocoEncoding
from ovrs.errors import DataError, nearest, shortened

_LINK = "#"  # between the annotation file and the id of an image: the name of its labels


@dataclass(frozen=True)
class CocoFile:
    """What an annotation file holds.

    Attributes:
        images: {id: entry of the image}.
        categories: {id: name}.
        annotations: {id of the image: its annotations, in the order of the file}.
    """

    images: dict[int, dict[str, Any]]
    categories: dict[int, str]
    annotations: dict[int, list[dict[str, Any]]]


@lru_cache(maxsize=2)
def read_coco(path: Path) -> CocoFile:
    """Read an annotation file.

    Raises:
        DataError: it is missing, no JSON, or not of COCO's form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        images = {image["id"]: image for image in content["images"]}
        for image in images.values():
            _ = str(image["file_name"]), int(image["height"]), int(image["width"])
        categories = {category["id"]: str(category["name"]) for category in content["categories"]}
    except FileNotFoundError:
        raise DataError(f"there is no COCO file {path}; correct labels.coco, or the split's labels.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is no readable COCO file ({error}); export the annotations again.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not of COCO's form (images, categories and annotations with their ids; {error!r} is missing "
            "or wrong); export the annotations again, as COCO instances."
        ) from None
    return CocoFile(images, categories, dict(annotations))


def label_size(name: str | Path) -> tuple[int, int] | None:
    """Return (height, width) of the labels that :func:`label_name` names; None for the name of a file of its own."""
    path, link, number = str(name).rpartition(_LINK)
    if not link or not path.endswith(".json") or not number.isdecimal():
        return None
    image = read_coco(Path(path)).images[int(number)]
    return int(image["height"]), int(image["width"])


def label_name(path: Path, image: int) -> str:
    """Return what stands for the label file of an image."""
    return f"{path}{_LINK}{image}"


def read_coco_labels(name: str | Path, encoding: CocoEncoding, card: DatasetCard) -> np.ndarray:
    """Paint the annotations of an image, larger ones first, of equals the earlier ones.

    Args:
        name: see :func:`label_name`.
        encoding: which categories are which classes.
        card: for messages.

    Returns:
        uint8 [H, W], class index 0..T-1 or ``IGNORE_LABEL``.

    Raises:
        DataError: the file or the image in it is missing, a category that the card does not know, or an annotation
            without a shape.
    """
    path, _, number = str(name).rpartition(_LINK)
    content = read_coco(Path(path))
    image = content.images[int(number)]
    height, width = int(image["height"]), int(image["width"])
    classes = dict(encoding.table)
    shapes = []
    for annotation in content.annotations.get(int(number), ()):
        category = content.categories.get(annotation.get("category_id"))
        if category not in classes:
            raise DataError(
                f"{path}: annotation {annotation.get('id')} of {image['file_name']} has the category {category!r}, "
                f"which is no class of {card.path}. Known are {shortened(classes, 20)}; the nearest is "
                f"{nearest(str(category), classes)}. Say what it is under labels.categories (null: ignored)."
            )
        code = _run_lengths(annotation, height, width, f"{path}: annotation {annotation.get('id')}")
        shapes.append((int(coco_mask.area(code)), code, classes[category]))
    labels = np.full((height, width), encoding.background, np.uint8)
    for _, code, index in sorted(shapes, key=lambda shape: -shape[0]):  # stable: later ones of equals come later
        labels[coco_mask.decode(code).astype(bool)] = index
    return labels


def _run_lengths(annotation: dict[str, Any], height: int, width: int, where: str) -> dict[str, Any]:
    """Return the shape of an annotation as compressed run lengths."""
    shape = annotation.get("segmentation")
    try:
        if isinstance(shape, list) and shape:
            return coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
        if isinstance(shape, dict):
            if list(shape["size"]) != [height, width]:
                raise DataError(
                    f"{where} is of the size {shape['size']}, but its image is {[height, width]} (rows, columns)."
                )
            return coco_mask.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{where} has a broken segmentation ({error!r}); export the annotations again.") from None
    raise DataError(
        f"{where} has no segmentation, only a box; labels need polygons or run lengths (COCO instances or stuff)."
    )
