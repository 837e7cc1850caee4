"""Recordings of the training-free originals (``golden/training_free``): arrays, weights, images, comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden import fill
from torch import Tensor

FREE = Path(__file__).parent / "training_free"
TOLERANCE = 1e-4  # of an array's largest value


def read_free(name: str) -> dict[str, Any]:
    """Read the arrays of one recording; ``meta`` is a dictionary."""
    with np.load(FREE / f"{name}.npz") as archive:
        arrays = dict(archive)
    return arrays | {"meta": json.loads(str(arrays["meta"]))}


def recorded_weights(meta: dict[str, Any], prefix: str = "", manifest: str = "clip_simfeatup") -> dict[str, Tensor]:
    """The weights whose official names start with ``prefix``, which is removed from them."""
    shapes = json.loads((FREE / f"{manifest}_manifest.json").read_text(encoding="utf-8"))
    state = {}
    for name, shape in shapes.items():
        if name.startswith(prefix) and (prefix or not name.startswith("upsampler.")):
            gain, offset = meta["adjust"].get(name, (1.0, 0.0)) if manifest != "dino" else (1.0, 0.0)
            value = np.float32(gain) * fill.fill_value(name, tuple(shape), meta["seed"]) + np.float32(offset)
            state[name[len(prefix) :]] = torch.from_numpy(np.asarray(value, dtype=np.float32))
    return state


def normalised_image(meta: dict[str, Any], hw: str = "hw", seed: str = "image_seed") -> Tensor:
    """The recorded picture, [3, h, w], normalised with the recorded constants."""
    image = torch.from_numpy(fill.image(*meta[hw], meta[seed])).float()
    mean, std = (torch.tensor(meta[key])[:, None, None] for key in ("mean", "std"))
    return (image - mean) / std


def relative_error(actual: Tensor, golden: dict[str, Any], name: str, quantile: float = 1.0) -> float:
    """Largest difference (or a quantile of them) from a recorded array as a share of its largest value.

    ``actual`` is complete; of it the recorded elements are taken.
    """
    steps = golden["meta"].get("subsampling", {}).get(name, ())
    picked = actual.detach().float().numpy()[tuple(slice(None, None, step) for step in steps)]
    expected = golden[name]
    assert picked.shape == expected.shape, f"{name}: {picked.shape} instead of {expected.shape}"
    error = float(np.quantile(np.abs(picked - expected), quantile) / np.abs(expected).max())
    if quantile == 1.0:
        print(f"{name}: {error:.1e}")  # shown by pytest -s
    return error


def assert_close(actual: Tensor, golden: dict[str, Any], name: str) -> None:
    """Compare a complete array with a recorded one."""
    error = relative_error(actual, golden, name)
    assert error < TOLERANCE, f"{name}: relative error {error:.1e}"
