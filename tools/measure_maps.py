#!/usr/bin/env python3
"""Measure the raster engine: memory by the raster's height, and speed beside the model alone.

Examples:
    python tools/measure_maps.py memory --rows 2048 8192 32768
    python tools/measure_maps.py speed --model output/demo/gsnet --rows 2048 --columns 2048
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovrs.raster import LocalExecutor, ModelInfo, RasterOptions, WindowModel, map_rasters
from ovrs.scores import ScoreRule

CLASSES = ("building", "road", "tree", "water", "grass", "crop", "soil", "car", "pool")


class CheapModel:
    """Nine classes by the brightness of a pixel, as coarse as most heads: a quarter of the resolution."""

    info = ModelInfo(
        names=CLASSES, kernel=384, cell=4, rule=ScoreRule(), identity={"model": "brightness"}, batch_size=4
    )

    def score(self, windows: Tensor) -> Tensor:
        """See :class:`ovrs.raster.WindowModel`."""
        grey = torch.nn.functional.avg_pool2d(windows.float().mean(dim=1, keepdim=True), self.info.cell)
        levels = torch.linspace(0, 255, len(CLASSES))[:, None, None]
        return (-(grey - levels).abs() / 32).exp()


def main() -> None:
    """Parse arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "one", "speed"), help="'one' is what 'memory' runs for each height")
    parser.add_argument("--rows", type=int, nargs="+", default=[2048, 8192, 32768], help="default: %(default)s")
    parser.add_argument("--columns", type=int, default=8192, help="default: %(default)s")
    parser.add_argument("--model", help="the folder of a training, or a released model (default: a cheap stand-in)")
    parser.add_argument("--raster", type=Path, help="for 'one'")
    parser.add_argument("--rounds", type=int, default=3, help="for 'speed' (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=0)
    args = parser.parse_args()
    {"memory": measure_memory, "one": measure_one, "speed": measure_speed}[args.what](args)


def measure_memory(args: argparse.Namespace) -> None:
    """Map rasters of several heights, each in a process of its own."""
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = write_raster(Path(folder, "scene.tif"), rows, args.columns)
            words = [sys.executable, __file__, "one", "--raster", str(path)]
            found = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(
            f"{rows:6d} x {args.columns} pixels: {found['peak']:6.0f} MiB at most, {found['before']:.0f} of them with "
            f"the model alone; {found['seconds']:.0f} s",
            flush=True,
        )


def measure_one(args: argparse.Namespace) -> None:
    """Map one raster and print what it took as JSON."""
    model = CheapModel()
    with torch.inference_mode():
        model.score(torch.zeros(4, 3, 384, 384, dtype=torch.uint8))
    before = peak_memory()
    began = time.perf_counter()
    executor = LocalExecutor(model)
    (outcome,) = map_rasters([args.raster], args.raster.with_name("maps"), executor, RasterOptions())
    executor.close()
    assert outcome["status"] == "done", outcome
    print(json.dumps({"before": before, "peak": peak_memory(), "seconds": time.perf_counter() - began}))


def measure_speed(args: argparse.Namespace) -> None:
    """Time the model alone on as many windows as a raster has, and the whole way from raster to map.

    The two alternate, and the best of each counts: a machine that others use as well is slower at times.
    """
    model = Counting(load(args))
    side, count = model.info.kernel, model.info.batch_size
    batch = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    whole, alone = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = write_raster(Path(folder, "scene.tif"), args.rows[0], args.columns)
        for _ in range(args.rounds):
            model.passes = 0
            executor = LocalExecutor(model)
            began = time.perf_counter()
            (outcome,) = map_rasters([path], Path(folder, "maps"), executor)
            whole.append(time.perf_counter() - began)
            executor.close()
            assert outcome["status"] == "done", outcome
            with torch.inference_mode():
                began = time.perf_counter()
                for _ in range(passes := model.passes):
                    model.score(batch).cpu()
                alone.append(time.perf_counter() - began)
    pixels = args.rows[0] * args.columns / 1e6
    print(
        f"{passes} passes of {count} windows of {side} pixels: the model alone {min(alone):.1f} s, from raster to map "
        f"{min(whole):.1f} s: {100 * min(alone) / min(whole):.0f} % of its speed, {pixels / min(whole):.3f} megapixels "
        f"per second"
    )


class Counting:
    """A model that counts its passes."""

    def __init__(self, model: WindowModel) -> None:
        self.info, self._model, self.passes = model.info, model, 0

    def score(self, windows: Tensor) -> Tensor:
        """See :class:`ovrs.raster.WindowModel`."""
        self.passes += 1
        return self._model.score(windows)


def load(args: argparse.Namespace) -> WindowModel:
    """Return the model to measure."""
    if not args.model:
        return CheapModel()
    from ovrs import Predictor

    return Predictor.from_pretrained(args.model).window_model(CLASSES, batch_size=args.batch_size)


def write_raster(path: Path, rows: int, columns: int) -> Path:
    """Write a tiled, compressed raster of hills."""
    import rasterio
    from rasterio.windows import Window

    kind = {"driver": "GTiff", "count": 3, "dtype": "uint8", "tiled": True, "blockxsize": 512, "blockysize": 512}
    place = {"crs": "EPSG:25832", "transform": rasterio.Affine(0.5, 0, 346000, 0, -0.5, 5648000)}
    x = np.arange(columns) / 97
    with rasterio.open(path, "w", height=rows, width=columns, compress="deflate", zlevel=1, **kind, **place) as dataset:
        for top in range(0, rows, 512):
            y = np.arange(top, min(top + 512, rows))[:, None] / 61
            hills = ((np.sin(x + y) * np.cos(y - x / 3) + 1) * 127).astype(np.uint8)
            dataset.write(np.stack([hills, 255 - hills, hills]), window=Window(0, top, columns, len(y)))
    return path


def peak_memory() -> float:
    """Return the most memory that this process has held, in MiB (of Linux; getrusage counts the parent's too)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
