"""A miniature data set on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from image_pairs import save_pair

from ovrs.config import get_cfg

CLASSES = ["building|house", "road", "other"]


@pytest.fixture
def write_card(tmp_path: Path) -> Callable[..., Path]:
    """Write a card into the folder "my data" (with a space) and return its path."""

    def write(file_name: str = "town.yaml", **changes: object) -> Path:
        content = {"name": "town", "classes": CLASSES, "splits": {"train": {"images": "images", "labels": "labels"}}}
        content = {key: value for key, value in {**content, **changes}.items() if value is not None}
        path = tmp_path / "my data" / file_name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def town(write_card: Callable[..., Path]) -> Path:
    """The card of a data set of seven pairs, 24 x 16 and 16 x 24; red encodes the label, green the image's number."""
    card = write_card()
    rng = np.random.default_rng(0)
    for number in range(7):
        shape = (16, 24) if number % 3 else (24, 16)
        labels = rng.integers(0, len(CLASSES), shape).astype(np.uint8)
        save_pair(card.parent, f"{number:03d}", labels, number)
    return card


@pytest.fixture
def cfg(town: Path):
    """A configuration that trains on the miniature data set without changing its pixels."""
    cfg = get_cfg()
    cfg.SEED = 3
    cfg.DATASETS.TRAIN = (str(town),)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.INPUT.CROP.ENABLED = False
    cfg.INPUT.COLOR_AUG_SSD = False
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.PAD_TO = 0
    return cfg
