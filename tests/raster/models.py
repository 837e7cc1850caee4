"""Models whose result is known, and scenes whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from torch import Tensor

from ovrs.raster import ModelInfo
from ovrs.scores import ScoreRule

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40], [90, 90, 90]], np.uint8)
NAMES = ("building", "tree", "water", "crop", "road")
UTM = Affine(0.5, 0, 346000, 0, -0.5, 5648000)


class ColourModel:
    """Scores every class by how near a pixel is to the class's colour."""

    def __init__(self, kernel: int = 32, cell: int = 1, batch_size: int = 3, **info) -> None:
        info = {"names": NAMES, "rule": ScoreRule(), "identity": {"model": "colour"}, **info}
        self.info = ModelInfo(kernel=kernel, cell=cell, batch_size=batch_size, **info)
        self.passes = 0

    def score(self, windows: Tensor) -> Tensor:
        assert windows.dtype == torch.uint8
        assert windows.shape == (self.info.batch_size, 3, self.info.kernel, self.info.kernel)
        self.passes += 1
        colours = torch.from_numpy(COLOURS[: len(self.info.names)]).float()
        distance = (windows.float()[:, None] - colours[None, :, :, None, None]).abs().mean(dim=2)
        scores = (-distance / 64).exp()
        return torch.nn.functional.avg_pool2d(scores, self.info.cell)


class RampModel(ColourModel):
    """One class, whose score is the red channel."""

    def score(self, windows: Tensor) -> Tensor:
        self.passes += 1
        return torch.nn.functional.avg_pool2d(windows[:, :1].float() / 255, self.info.cell)


def draw_truth(height: int, width: int, seed: int = 0, patch: int = 7) -> np.ndarray:
    """Labels in patches of a few pixels, uint8 [height, width]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, len(COLOURS), (-(-height // patch), -(-width // patch)), dtype=np.uint8)
    return np.kron(coarse, np.ones((patch, patch), np.uint8))[:height, :width]


def write_raster(path: Path, values: np.ndarray, **profile) -> Path:
    """Write [bands, h, w] values; georeferenced in UTM unless told otherwise."""
    profile = {"driver": "GTiff", "crs": "EPSG:25832", "transform": UTM, **profile}
    count, height, width = values.shape
    with rasterio.open(path, "w", dtype=values.dtype, count=count, height=height, width=width, **profile) as dataset:
        dataset.write(values)
    return path


def write_scene(path: Path, truth: np.ndarray, **profile) -> Path:
    """Write the picture of labels."""
    return write_raster(path, COLOURS[truth].transpose(2, 0, 1), **profile)


def read(path: Path, band: int = 1) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(band)
