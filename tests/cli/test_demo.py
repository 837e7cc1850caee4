"""ovrs demo: the table of scores that it ends with."""

import json

import numpy as np
import pytest
from PIL import Image

from ovrs.cli.demo import print_scores
from ovrs.demo import CLASSES, RENAMED_CLASSES, DemoScenes
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
