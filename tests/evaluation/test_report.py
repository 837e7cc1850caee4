import json
import math
import os
from pathlib import Path

import pytest

from ovrs.evaluation import EvaluationError, Report

THIRD = 100 / 3


def figures(miou, **classes):
    main = {"mIoU": miou, "fwIoU": 50.0, "mACC": 60.0, "aACC": 70.0}
    per_class = {
        f"{figure}-{name}": value for figure in ("IoU", "ACC", "Precision", "F1") for name, value in classes.items()
    }
    return main | per_class


def protocol(name):
    return {
        "dataset": {"name": name, "card": None},
        "model": {"head": "GSNetHead", "vlm": {"arch": "ViT-B-16"}},
        "vocabulary": {"templates": ["a photo of a {}.", "{}"], "classes": []},
    }


@pytest.fixture
def report():
    report = Report("Three sets", left_out_of_average=["trained_on"])
    report.add("scenes_val", figures(THIRD, **{"low-vegetation": THIRD, "a|b": math.nan}), protocol("scenes_val"))
    report.add("town_val", figures(50.0, road=50.0), protocol("town_val"))
    report.add("trained_on", figures(90.0, road=90.0), protocol("trained_on"))
    return report


def rows(table):
    """Cells of a Markdown table; an escaped bar is part of a cell."""
    lines = [line.strip("|").replace("\\|", "¦").split("|") for line in table.splitlines()]
    return [[cell.strip() for cell in line] for line in lines if not set(line[0]) <= set("-: ")]


def test_average_is_the_plain_mean_of_the_sets_that_are_not_left_out(report):
    assert report.averaged_sets() == ["scenes_val", "town_val"]
    assert report.average()["mIoU"] == pytest.approx((THIRD + 50) / 2)


def test_results_are_flat_and_in_full_precision(report):
    results = report.results()
    assert results["scenes_val/mIoU"] == THIRD
    assert results["trained_on/mIoU"] == 90
    assert results["average/mIoU"] == pytest.approx((THIRD + 50) / 2)
    assert len(results) == 4 * 4


def test_table_has_a_row_for_each_set_and_the_average_with_two_decimals(report):
    assert rows(report.table()) == [
        ["data set", "mIoU", "fwIoU", "mACC", "aACC"],
        ["scenes_val", "33.33", "50.00", "60.00", "70.00"],
        ["town_val", "50.00", "50.00", "60.00", "70.00"],
        ["trained_on", "90.00", "50.00", "60.00", "70.00"],
        ["average", "41.67", "50.00", "60.00", "70.00"],
    ]


def test_class_table_shows_a_dash_for_classes_that_do_not_count(report):
    assert rows(report.class_table("scenes_val")) == [
        ["class", "IoU", "ACC", "Precision", "F1"],
        ["low-vegetation", "33.33", "33.33", "33.33", "33.33"],
        ["a¦b", "–", "–", "–", "–"],
    ]


def test_without_a_set_to_average_there_is_no_average():
    report = Report(left_out_of_average=["only"])
    assert report.results() == {}
    report.add("only", figures(10.0), {})
    assert list(report.results()) == ["only/mIoU", "only/fwIoU", "only/mACC", "only/aACC"]
    assert "average" not in report.table()


def test_json_round_trip_keeps_full_precision_and_writes_nan_as_null(report):
    content = json.loads(report.to_json())
    assert content["average"] == {"datasets": ["scenes_val", "town_val"], "figures": report.average()}
    scenes = content["datasets"]["scenes_val"]
    assert scenes["figures"]["mIoU"] == THIRD
    assert scenes["classes"]["low-vegetation"] == {"IoU": THIRD, "ACC": THIRD, "Precision": THIRD, "F1": THIRD}
    assert scenes["classes"]["a|b"]["IoU"] is None
    assert scenes["protocol"] == protocol("scenes_val")


def test_markdown_has_every_table_and_states_shared_protocol_once(report):
    page = report.to_markdown()
    assert page.startswith("# Three sets\n")
    assert report.table() in page
    for name in ("scenes_val", "town_val", "trained_on"):
        assert report.class_table(name) in page
        assert f"  - name: `{name}`" in page
    assert "plain mean over: scenes_val, town_val." in page
    assert page.count("GSNetHead") == 1
    assert page.count("- templates: `a photo of a {}.`, `{}`") == 1


def test_written_files_are_the_json_and_the_markdown(report, tmp_path):
    json_path, markdown_path = report.write(tmp_path / "new folder" / "run 1")
    assert json_path.read_text(encoding="utf-8") == report.to_json()
    assert markdown_path.read_text(encoding="utf-8") == report.to_markdown()
    assert sorted(path.name for path in json_path.parent.iterdir()) == ["report.json", "report.md"]


@pytest.mark.parametrize(("owner", "function"), [(Path, "write_text"), (os, "replace")])
def test_a_failed_write_leaves_the_old_report_and_no_debris(report, tmp_path, monkeypatch, owner, function):
    report.write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*arguments, **keywords):
        raise OSError("disk full")

    report.add("another", figures(1.0), protocol("another"))
    monkeypatch.setattr(owner, function, fail)
    with pytest.raises(OSError, match="disk full"):
        report.write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_set_cannot_be_added_twice(report):
    with pytest.raises(EvaluationError, match="town_val is in the report already"):
        report.add("town_val", figures(1.0), {})


def test_results_without_the_main_figures_are_refused():
    with pytest.raises(EvaluationError, match="scenes_val: the results lack fwIoU, aACC"):
        Report().add("scenes_val", {"mIoU": 1.0, "mACC": 2.0}, {})


def test_the_page_shows_the_configuration_as_yaml_and_lists_in_one_line():
    report = Report()
    report.add("set", figures(50.0), {"weights": {"file": "a.pth"}, "config": {"TEST": {"SIZES": [1, 2], "RULE": "x"}}})
    page = report.to_markdown()
    assert "  - file: `a.pth`" in page
    assert page.endswith("```yaml\nTEST:\n  SIZES: [1, 2]\n  RULE: x\n```\n")
