"""Prepared data sets of two small images, in the folders and the label codes of their cards."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from detectron2.data import MetadataCatalog

from ovrs.data import resolve_datasets

SIZE = (40, 48)


def write_set(name: str, root: Path) -> None:
    """Write a split by its registered name: noise as images, stripes of all classes as labels."""
    resolve_datasets([name], root)
    metadata = MetadataCatalog.get(name)
    card, split = metadata.card, metadata.card.splits[metadata.split]
    values = sorted({stored for stored, _ in card.labels.table})
    random = np.random.default_rng(len(name))
    for number in range(2):
        image = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        rows = np.arange(SIZE[0])[:, None] // 4 + np.arange(SIZE[1])[None] // 4 + number
        labels = np.array(values, np.uint8)[rows % len(values)]
        for folder, suffix, pixels in (
            (split.images, split.image_suffix, image), (split.labels, split.label_suffix, labels),
        ):  # fmt: skip
            path = root / folder / f"tile_{number}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            # OpenCV picks the format by an ending in lower case.
            _, code = cv2.imencode(path.suffix.lower(), pixels)
            path.write_bytes(code.tobytes())
