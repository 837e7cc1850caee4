"""Label maps as COCO annotation files, for annotation tools."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ovrs.files import replacing


def write_coco(path: str | Path, label_maps: Iterable[tuple[str, np.ndarray]], names: Sequence[str]) -> Path:
    """Write label maps as COCO annotations: one per class and image, as compressed run lengths.

    Args:
        path: the JSON file.
        label_maps: (file name of the image, integers [H, W]); values that are no index into ``names`` get no
            annotation.
        names: the classes; category ids count from 1.

    Returns:
        ``path``.
    """
    content: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names, start=1)],
        "annotations": [],
    }
    for number, (file_name, labels) in enumerate(label_maps, start=1):
        height, width = labels.shape
        content["images"].append({"id": number, "file_name": file_name, "height": height, "width": width})
        for index in range(len(names)):
            area = labels == index
            if not area.any():
                continue
            code = coco_mask.encode(np.asfortranarray(area, dtype=np.uint8))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": index + 1,
                    "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
                    "area": int(area.sum()),
                    "bbox": [float(side) for side in coco_mask.toBbox(code)],
                    "iscrowd": 1,  # run lengths, not polygons
                }
            )
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
    return path
