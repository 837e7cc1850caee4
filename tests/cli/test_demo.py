"""ovrs demo: the map and the table of scores that it ends with."""

import json
from functools import partial

import numpy as np
import pytest
import rasterio
from PIL import Image

from ovrs.cli.demo import print_scores
from ovrs.demo import CLASSES, RENAMED_CLASSES, DemoScenes, write_town
from ovrs.evaluation.chance import chance_miou


@pytest.fixture
def report(tmp_path):
    """Write a report of both names of the classes: trained ones score 50, 51, ..., renamed ones 20, 21, ..."""

    def entry(names, first):
        classes = {name.split("|")[0]: {"IoU": first + i} for i, name in enumerate(names)}
        return {"figures": {"mIoU": first + 3.5}, "classes": classes}

    def write(**changes):
        content = {"scenes_val": entry(CLASSES, 50.0), "scenes_renamed_val": entry(RENAMED_CLASSES, 20.0)}
        content["scenes_val"]["classes"].update(changes)
        (tmp_path / "report.json").write_text(json.dumps({"datasets": content}))
        return tmp_path

    return write


@pytest.fixture
def printed(scenes, capsys):
    """Print the scores of a folder and return the cells of each line of the table."""

    def print_and_read(folder):
        splits = ("scenes.yaml:train", "scenes.yaml:val", "scenes_renamed.yaml:val")
        print_scores(folder, DemoScenes(*(f"{scenes / split}" for split in splits)))
        lines = capsys.readouterr().out.strip().splitlines()
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    return print_and_read


def test_every_class_stands_beside_its_new_name_with_both_scores(printed, report):
    table = printed(report())
    names = [(a.split("|")[0], b.split("|")[0]) for a, b in zip(CLASSES, RENAMED_CLASSES, strict=True)]
    rows = [[a, f"{50 + i}.0", b, f"{20 + i}.0"] for i, (a, b) in enumerate(names)]
    assert table[2 : 2 + len(names)] == rows
    assert table[2 + len(names)] == ["mIoU", "53.5", "mIoU", "23.5"]


def test_chance_is_that_of_the_labels(printed, report, scenes):
    truth = [np.asarray(Image.open(path)) for path in (scenes / "labels" / "val").iterdir()]
    chance = f"{chance_miou(truth, len(CLASSES)):.1f}"
    assert printed(report())[-1] == ["(chance)", chance, "(chance)", chance]


def test_class_that_does_not_occur_has_an_empty_score(printed, report):
    missing = CLASSES[2].split("|")[0]
    row = printed(report(**{missing: {"IoU": None}}))[4]
    assert row[:2] == [missing, ""]


def test_demonstration_ends_with_a_map_and_the_lines_to_open_it(ovrs, tmp_path, monkeypatch):
    """Everything but the length of the training and the size of the pictures is as a user gets it."""
    monkeypatch.setattr("ovrs.demo.write_town", partial(write_town, size=128))
    short = ("SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "MODEL.DEVICE", "cpu")
    scenes = ("--train-scenes", 2, "--val-scenes", 1)
    printed = ovrs("demo", "demo/gsnet", *short, "--output", tmp_path, "--processes", 1, *scenes)
    maps = tmp_path / "gsnet" / "maps"
    assert f"qgis {tmp_path / 'town' / 'town.tif'} {maps / 'town_labels.tif'} {maps / 'town_polygons.gpkg'}" in printed
    assert f"ovrs serve --model {tmp_path / 'gsnet'}" in printed
    for name in ("town_labels.tif", "town_labels.qml", "town_polygons.gpkg", "town_overlay.png"):
        assert (maps / name).is_file()
    with (
        rasterio.open(maps / "town_labels.tif") as labels,
        rasterio.open(tmp_path / "town" / "town_truth.tif") as truth,
    ):
        assert labels.crs == truth.crs
        assert labels.transform == truth.transform
        share = (labels.read(1) == truth.read(1)).mean()
    assert f"agrees with the truth on {100 * share:.1f} % of the pixels" in printed
