from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from models import ColourModel, read, write_raster

from ovrs.raster import LocalExecutor, RasterOptions, map_rasters

SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from models import ColourModel
from ovrs.raster import LocalExecutor, RasterOptions, map_rasters

class Slow(ColourModel):
    def score(self, windows):
        time.sleep({pause})
        return super().score(windows)

options = RasterOptions(confidence=True, resume=True)
map_rasters([{path!r}], {out!r}, LocalExecutor(Slow(cell=4)), options)
"""


@pytest.fixture
def scene(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (3, 400, 90), dtype=np.uint8)
    return write_raster(tmp_path / "scene.tif", picture)


def make_map(path, out, model=None, **options):
    executor = LocalExecutor(model or ColourModel(cell=4))
    (outcome,) = map_rasters([path], out, executor, RasterOptions(**{"confidence": True, **options}))
    executor.close()
    return outcome


def start(scene, out, pause):
    code = SLOW.format(tests=str(Path(__file__).parent), path=str(scene), out=str(out), pause=pause)
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def wait_for_parts(out, count, process):
    while len(list(out.glob("scene_parts/labels_*.tif"))) < count:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.01)


def test_killed_run_goes_on_to_the_same_bytes(tmp_path, scene):
    make_map(scene, tmp_path / "straight")
    out = tmp_path / "killed"
    for count in (2, 5):
        process = start(scene, out, 0.02)
        wait_for_parts(out, count, process)
        process.kill()
        process.communicate()
    assert not (out / "scene_labels.tif").exists()
    model = ColourModel(cell=4)
    outcome = make_map(scene, out, model, resume=True)
    assert outcome["status"] == "done"
    whole = ColourModel(cell=4)
    make_map(scene, tmp_path / "again", whole)
    assert model.passes < whole.passes
    for name in ("labels.tif", "confidence.tif", "areas.csv", "labels.qml"):
        assert (out / f"scene_{name}").read_bytes() == (tmp_path / "straight" / f"scene_{name}").read_bytes()


@pytest.mark.heavy
def test_ten_kills_at_random_moments_leave_the_same_bytes(tmp_path, scene):
    make_map(scene, tmp_path / "straight")
    out, rng = tmp_path / "killed", np.random.default_rng(1)
    for _ in range(10):
        process = start(scene, out, 0.02)
        wait_for_parts(out, min(len(list(out.glob("scene_parts/labels_*.tif"))) + 1, 20), process)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
    assert make_map(scene, out, resume=True)["status"] in ("done", "skipped")
    for name in ("labels.tif", "confidence.tif", "areas.csv", "labels.qml"):
        assert (out / f"scene_{name}").read_bytes() == (tmp_path / "straight" / f"scene_{name}").read_bytes()


def test_interrupted_run_ends_at_once_and_says_what_was_not_reached(tmp_path, scene):
    import signal

    process = start(scene, tmp_path / "maps", 0.02)
    wait_for_parts(tmp_path / "maps", 2, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert errors.decode().strip().endswith("KeyboardInterrupt")
    assert process.returncode != 0
    report = json.loads((tmp_path / "maps/report.json").read_text(encoding="utf-8"))
    assert report["not_reached"] == [str(scene)]
    assert make_map(scene, tmp_path / "maps", resume=True)["status"] == "done"


def test_finished_map_is_skipped_and_an_incomplete_one_is_made_again(tmp_path, scene):
    first = make_map(scene, tmp_path / "maps")
    model = ColourModel(cell=4)
    second = make_map(scene, tmp_path / "maps", model, resume=True)
    assert (second["status"], model.passes) == ("skipped", 0)
    assert second["classes"] == first["classes"]
    with open(tmp_path / "maps/scene_labels.tif", "r+b") as stream:
        stream.truncate(100)
    third = make_map(scene, tmp_path / "maps", model, resume=True)
    assert third["status"] == "done"
    assert model.passes > 0
    assert read(tmp_path / "maps/scene_labels.tif").shape == (400, 90)


def test_damaged_part_is_done_again(tmp_path, scene):
    make_map(scene, tmp_path / "straight")
    process = start(scene, tmp_path / "maps", 0.01)
    wait_for_parts(tmp_path / "maps", 4, process)
    process.kill()
    process.communicate()
    part = sorted(tmp_path.glob("maps/scene_parts/confidence_*.tif"))[1]
    part.write_bytes(part.read_bytes()[:200])
    make_map(scene, tmp_path / "maps", resume=True)
    assert (tmp_path / "maps/scene_confidence.tif").read_bytes() == (
        tmp_path / "straight/scene_confidence.tif"
    ).read_bytes()


@pytest.mark.parametrize(
    ("model", "options", "what"),
    [
        ({"identity": {"model": "another"}}, {}, "model"),
        ({"names": ("a", "b", "c", "d", "e")}, {}, "classes"),
        ({}, {"bands": (3, 2, 1)}, "reading"),
        ({}, {"overlap": 0.5}, "reading"),
        ({}, {"scores": True}, "layers"),
        ({}, {"colours": {"water": "#0000ff"}}, "colours"),
    ],
)
def test_run_with_other_settings_does_not_go_on(tmp_path, scene, model, options, what):
    make_map(scene, tmp_path / "maps")
    outcome = make_map(scene, tmp_path / "maps", ColourModel(cell=4, **model), resume=True, **options)
    assert f"an earlier run had another {what}" in outcome["error"]


def test_changed_input_does_not_go_on(tmp_path, scene):
    make_map(scene, tmp_path / "maps")
    os.utime(scene, (1, 1))
    outcome = make_map(scene, tmp_path / "maps", resume=True)
    assert "an earlier run had another input" in outcome["error"]
    assert make_map(scene, tmp_path / "maps")["status"] == "done"
