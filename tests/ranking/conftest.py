"""Images in the colours of their classes, and a model that sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.config import CfgNode
from PIL import Image
from ranking.colour_model import COLOURS, ColourVLM

from ovrs.config import get_cfg
from ovrs.ranking import FrozenTower


@pytest.fixture
def tower() -> FrozenTower:
    """The colour model on pixels brought to 0..1."""
    return FrozenTower(ColourVLM(), pixel_mean=[0, 0, 0], pixel_std=[255, 255, 255])


@pytest.fixture
def write_town(tmp_path: Path) -> Callable[..., str]:
    """Write a data set of label maps, each pixel in the colour of its class, and return "CARD:train"."""

    def write(*maps: np.ndarray, name: str = "town", classes: tuple[str, ...] = tuple(COLOURS)) -> str:
        folder = tmp_path / "my data" / name
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True)
        colours = np.array([*COLOURS.values(), (0, 0, 0)], np.uint8)
        for number, labels in enumerate(maps):
            Image.fromarray(labels.astype(np.uint8)).save(folder / "labels" / f"{number:03d}.png")
            image = colours[np.where(labels == 255, len(colours) - 1, labels)]
            Image.fromarray(image).save(folder / "images" / f"{number:03d}.png")
        card = {
            "name": name,
            "classes": list(classes),
            "splits": {"train": {"images": "images", "labels": "labels"}, "bare": {"images": "images", "labels": None}},
        }
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(card), encoding="utf-8")
        return f"{path}:train"

    return write


@pytest.fixture
def maps() -> list[np.ndarray]:
    """Three label maps of blocks of pixels, one of them not square, with ignored pixels."""
    rng = np.random.default_rng(1)
    maps = [rng.integers(0, 3, shape).repeat(16, axis=0).repeat(16, axis=1) for shape in ((4, 4), (4, 6), (8, 8))]
    maps[0][:20, :20] = 255
    return maps


@pytest.fixture
def town(write_town: Callable[..., str], maps: list[np.ndarray]) -> str:
    """The data set of :func:`maps`."""
    return write_town(*maps)


@pytest.fixture
def cfg() -> CfgNode:
    """A configuration that tests images at their own size."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TEST = 0
    return cfg
