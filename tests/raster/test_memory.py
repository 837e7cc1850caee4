"""Memory does not grow with the height of a raster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from models import write_raster

CODE = """
import sys
sys.path.insert(0, {tests!r})
from models import ColourModel
from ovrs.raster import LocalExecutor, RasterOptions, map_rasters

(outcome,) = map_rasters([{path!r}], {out!r}, LocalExecutor(ColourModel(kernel=128, cell=4)), RasterOptions())
assert outcome["status"] == "done", outcome
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(tmp_path, rows):
    """KiB that a process holds at most while it maps a raster of so many rows and 1500 columns."""
    block = np.random.default_rng(0).integers(0, 256, (3, 50, 150), dtype=np.uint8)
    path = write_raster(tmp_path / f"{rows}.tif", np.tile(block, (1, rows // 50, 10)), compress="deflate")
    code = CODE.format(tests=str(Path(__file__).parent), path=str(path), out=str(tmp_path / f"maps{rows}"))
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def test_ten_times_as_many_rows_take_no_more_memory(tmp_path):
    small, large = peak(tmp_path, 600), peak(tmp_path, 6000)
    assert large < 1.1 * small, f"{small} and {large} KiB"
