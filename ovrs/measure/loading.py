"""What one worker of the training loader can deliver, and where its time goes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image
from tabulate import tabulate

from ovrs.data.augmentation import build_augmentations
from ovrs.data.card import DatasetCard
from ovrs.data.encodings import IdEncoding
from ovrs.data.reading import read_pair

_NAMES = tuple("abcdefgh")
_CARD = DatasetCard("drawn", "", _NAMES, _NAMES, IdEncoding(tuple((i, i) for i in range(len(_NAMES)))), Path("drawn"))
FORMATS = {"PNG": {}, "JPEG": {"quality": 92}}


@dataclass(frozen=True)
class Loading:
    """One file format.

    Attributes:
        format: of the images; labels are PNG files of ids.
        images_per_second: of one worker with one thread, by its processor time: on a busy machine it gets less.
        seconds: of one image, by step.
    """

    format: str
    images_per_second: float
    seconds: dict[str, float]


def measure_loading(cfg: CfgNode, *, side: int = 1024, images: int = 24) -> list[Loading]:
    """Measure decoding and the augmentation of ``cfg.INPUT`` on drawn square pictures, in this process.

    Args:
        cfg: reads INPUT.
        side: of the pictures in pixels.
        images: per format.
    """
    steps = build_augmentations(cfg)
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        with TemporaryDirectory() as folder:
            return [_measure(Path(folder), name, steps, side, images) for name in FORMATS]
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _measure(folder: Path, name: str, steps: tuple, side: int, images: int) -> Loading:
    rng = np.random.default_rng(0)
    patches = rng.integers(32, 224, (side // 32 + 2, side // 32 + 2, 3), np.uint8)
    picture = cv2.add(cv2.resize(patches, (side, side)), rng.integers(0, 24, (side, side, 3), np.uint8))
    ids = cv2.resize(patches[..., 0] // 32, (side, side), interpolation=cv2.INTER_NEAREST)
    Image.fromarray(picture).save(folder / f"picture.{name}", name, **FORMATS[name])
    Image.fromarray(ids).save(folder / "labels.png")

    seconds: Counter[str] = Counter()
    for index in range(images + 1):
        if index == 1:  # the first warms up
            seconds.clear()
        start = time.process_time()
        image, labels = read_pair(folder / f"picture.{name}", folder / "labels.png", _CARD)
        seconds["decode"] += time.process_time() - start
        for step in steps:
            start = time.process_time()
            image, labels = step(image, labels, rng)
            seconds[type(step).__name__] += time.process_time() - start
        start = time.process_time()
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        torch.from_numpy(np.ascontiguousarray(labels, np.int64))
        seconds["to tensors"] += time.process_time() - start
    return Loading(name, images / sum(seconds.values()), {step: value / images for step, value in seconds.items()})


def table(found: list[Loading]) -> str:
    """Return the measurements as text."""
    steps = list(found[0].seconds)
    rows = [
        [m.format, f"{m.images_per_second:.1f}", *(f"{100 * m.seconds[s] * m.images_per_second:.1f}" for s in steps)]
        for m in found
    ]
    return tabulate(rows, ["format", "images/s per worker", *(f"{step} %" for step in steps)], disable_numparse=True)
