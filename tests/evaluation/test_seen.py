"""Seen and unseen classes: which they are, their means, and where the report shows them."""

from __future__ import annotations

import json
import math

import pytest

from ovrs.evaluation import Report
from ovrs.evaluation.seen import mark_seen, seen_and_unseen

CLASSES = ["building|house", "low-vegetation", "car", "clutter"]


def test_any_word_of_a_class_counts_and_plurals_are_other_words():
    assert mark_seen(CLASSES, ["roof|House", "Low_Vegetation", "cars"]) == (True, True, False, False)
    assert mark_seen(CLASSES, []) == (False,) * 4


def test_means_leave_out_classes_that_do_not_count():
    values = {"a": 60.0, "b": 40.0, "c": 25.0, "d": math.nan}
    found = seen_and_unseen(values, {"a": True, "b": True, "c": False, "d": False})
    assert found == pytest.approx({"seen": 50.0, "unseen": 25.0, "harmonic": 2 * 50 * 25 / 75})


def test_harmonic_mean_is_nothing_where_one_part_is_nothing():
    assert seen_and_unseen({"a": 50.0, "b": 0.0}, {"a": True, "b": False})["harmonic"] == 0
    assert seen_and_unseen({"a": 0.0, "b": 0.0}, {"a": True, "b": False})["harmonic"] == 0
    only_seen = seen_and_unseen({"a": 50.0}, {"a": True})
    assert only_seen["seen"] == 50
    assert math.isnan(only_seen["unseen"])
    assert math.isnan(only_seen["harmonic"])


def report(training_classes) -> Report:
    names = ["building", "low vegetation", "car", "clutter"]
    ious = dict(zip(names, (60.0, 40.0, 20.0, math.nan), strict=True))
    metrics = {"mIoU": 40.0, "fwIoU": 1.0, "mACC": 2.0, "aACC": 3.0}
    metrics |= {f"{figure}-{name}": iou for figure in ("IoU", "ACC", "Precision", "F1") for name, iou in ious.items()}
    made = Report(training_classes=training_classes)
    made.add("town", metrics, {"dataset": {"class_names": names}, "vocabulary": {"classes": CLASSES}})
    return made


def test_report_marks_classes_and_gives_the_three_means():
    page = report(["house", "low vegetation", "tree"]).to_markdown()
    assert "| town       |  50.00 |    20.00 |      28.57 |         2 of 4 |" in page
    assert "seen in training" in page
    assert [line.split("|")[-2].strip() for line in page.splitlines() if "60.00" in line] == ["yes"]
    assert [line.split("|")[-2].strip() for line in page.splitlines() if line.startswith("| car")] == ["no"]


def test_json_holds_marks_means_and_absent_classes():
    content = json.loads(report(["house", "car"]).to_json())["datasets"]["town"]
    assert content["seen_in_training"]["classes"] == {
        "building": True, "low vegetation": False, "car": True, "clutter": False,
    }  # fmt: skip
    assert content["seen_in_training"]["figures"] == pytest.approx({"seen": 40.0, "unseen": 40.0, "harmonic": 40.0})
    assert content["absent_classes"] == ["clutter"]


def test_absent_classes_are_listed_by_name():
    assert "No labelled pixel of: clutter." in report(None).to_markdown()


def test_without_training_classes_nothing_is_marked():
    made = report(None)
    assert made.seen_table() == ""
    assert "seen" not in made.to_markdown()
    assert json.loads(made.to_json())["datasets"]["town"]["seen_in_training"] is None
