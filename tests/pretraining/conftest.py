"""A tiny recipe, and a folder of drawn images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_recipes import words_of

from ovrs.pretraining import Recipe, load_recipe


@pytest.fixture
def tiny_recipe() -> Callable[..., Recipe]:
    return lambda **changes: load_recipe("", words_of(changes))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight striped images of their own colours and spacing, one in a folder within the folder."""
    folder = tmp_path_factory.mktemp("drawn images")
    rng = np.random.default_rng(0)
    (folder / "more").mkdir()
    for number in range(8):
        pixels = np.empty((40, 48, 3), np.uint8)
        pixels[:] = rng.integers(0, 256, 3)
        pixels[:: number + 2] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / ("more" if number == 7 else "") / f"{number}.png")
    return folder
