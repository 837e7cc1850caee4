from __future__ import annotations

import functools
import os

import numpy as np
import pytest
from models import ColourModel, write_raster

from ovrs.raster import LocalExecutor, ProcessExecutor, RasterOptions, map_rasters


class Mortal(ColourModel):
    """Its process dies at the fifth pass, once: a file remembers."""

    def __init__(self, number: int, memory: str) -> None:
        super().__init__(cell=4)
        self._memory = memory

    def score(self, windows):
        if self.passes == 4 and not os.path.exists(self._memory):
            open(self._memory, "w").close()
            os._exit(1)
        return super().score(windows)


def load(number: int) -> ColourModel:
    return ColourModel(cell=4)


@pytest.fixture
def scenes(tmp_path):
    rng = np.random.default_rng(0)
    return [
        write_raster(tmp_path / f"{name}.tif", rng.integers(0, 256, (3, *shape), dtype=np.uint8))
        for name, shape in (("one", (150, 90)), ("two", (20, 30)), ("three", (60, 120)))
    ]


def maps_of(paths, out, executor):
    outcomes = map_rasters(paths, out, executor, RasterOptions(scores=True))
    executor.close()
    assert [outcome["status"] for outcome in outcomes] == ["done"] * len(paths)
    return {file.name: file.read_bytes() for file in sorted(out.glob("*.tif"))}


def test_batches_go_over_the_borders_of_rasters(tmp_path, scenes):
    one_by_one = ColourModel(cell=4, batch_size=1)
    maps_of(scenes, tmp_path / "a", LocalExecutor(one_by_one))
    batched = ColourModel(cell=4, batch_size=16)
    maps_of(scenes, tmp_path / "b", LocalExecutor(batched))
    assert batched.passes == -(-one_by_one.passes // 16)


@pytest.mark.parametrize("readers", [1, 5])
def test_readers_change_no_pixel(tmp_path, scenes, readers):
    expected = maps_of(scenes, tmp_path / "a", LocalExecutor(ColourModel(cell=4), readers=2))
    assert maps_of(scenes, tmp_path / "b", LocalExecutor(ColourModel(cell=4), readers=readers)) == expected


def test_processes_change_no_pixel_even_if_one_is_lost(tmp_path, scenes):
    expected = maps_of(scenes, tmp_path / "a", LocalExecutor(ColourModel(cell=4)))
    memory = str(tmp_path / "died")
    executor = ProcessExecutor(functools.partial(Mortal, memory=memory), workers=2)
    assert maps_of(scenes, tmp_path / "b", executor) == expected
    assert os.path.exists(memory)
