"""Bars per class: lengths, marks, and what is not drawn side by side."""

from __future__ import annotations

import math

import pytest

from ovrs.errors import ConfigError, EvaluationError
from ovrs.evaluation import Report, protocol_key
from ovrs.plots import Measured, draw_classes, find_results


def lengths(figure) -> list[list[float]]:
    return [[bar.get_width() for bar in bars] for bars in figure.axes[0].containers]


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_bars_are_the_figures_class_by_class(record):
    results = [Measured.of(record("a")), Measured.of(record("b", (10.0, math.nan, 20.0)))]
    drawn = draw_classes(results)
    assert lengths(drawn) == [[50, 40, 30], [10, 0, 20]]
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == ["road", "tree", "water"]
    assert [text.get_text() for text in drawn.axes[0].texts] == ["50.0", "40.0", "30.0", "10.0", "–", "20.0"]
    assert lengths(draw_classes(results[:1], figure="F1")) == [[55, 45, 35]]


def test_unseen_classes_are_hatched_and_their_mean_is_given(record):
    drawn = draw_classes([Measured.of(record())])
    assert [bool(bar.get_hatch()) for bar in drawn.axes[0].containers[0]] == [False, False, True]
    assert legend(drawn)[0].endswith("(mIoU 40.00, seen 45.00, unseen 30.00, harmonic 36.00)")
    assert legend(drawn)[1:] == ["unseen in training"]


def test_unknown_training_set_is_said(record):
    drawn = draw_classes([Measured.of(record(datasets={"TRAIN": ["no_such_set"]}))])
    assert not any(bar.get_hatch() for bar in drawn.axes[0].containers[0])
    assert legend(drawn)[0].endswith("(mIoU 40.00, training classes unknown)")


def test_other_protocols_are_refused_or_written_below(record):
    results = [Measured.of(record("a")), Measured.of(record("b", test={"CROP_PADDING": False}))]
    with pytest.raises(EvaluationError, match=r"not drawn side by side: .*TEST\.CROP_PADDING is False, not True"):
        draw_classes(results)
    drawn = draw_classes(results, differing=True)
    assert "TEST.CROP_PADDING is False, not True" in drawn.get_supxlabel()
    assert draw_classes(results[:1]).get_supxlabel() == ""


def test_other_classes_are_never_drawn_together(record):
    other = record("b", dataset={"class_names": ["road", "tree", "lake"]})
    with pytest.raises(EvaluationError, match="have other classes"):
        draw_classes([Measured.of(record()), Measured.of(other)], differing=True)


def test_number_of_results_and_figure_are_checked(record):
    with pytest.raises(ConfigError, match="between 1 and 8 results"):
        draw_classes([])
    with pytest.raises(ConfigError, match="--figure must be one of IoU"):
        draw_classes([Measured.of(record())], figure="mIoU")


def test_results_are_found_by_every_name(record, store, tmp_path):
    first, second = record("a"), record("b")
    path = store.add(first)
    store.add(second)
    report = Report()
    metrics = {f"{figure}-{name}": value for name, row in first.classes.items() for figure, value in row.items()}
    report.add("town_val", {**first.figures, **metrics}, first.protocol)
    report.write(tmp_path / "a run")
    key = protocol_key(first.protocol)[:6]
    for word in (str(path), f"town_val/{key}", str(tmp_path / "a run"), str(tmp_path / "a run/report.json")):
        (found,) = find_results([word], store)
        assert found.result.classes == first.classes
        assert found.label.startswith("GSNetHead a ")
    assert len(find_results(["town_val"], store)) == 2


def test_what_names_no_result_is_refused(record, store, tmp_path):
    with pytest.raises(EvaluationError, match="the store is empty"):
        find_results(["town_val"], store)
    store.add(record())
    store.add(record("b", dataset={"name": "city_val"}))
    with pytest.raises(EvaluationError, match="nearest data set there is town_val"):
        find_results(["town_vall"], store)
    with pytest.raises(EvaluationError, match=r"results of 2 data sets.*town_val, city_val"):
        find_results(["town_val", "city_val"], store)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(EvaluationError, match=r"report\.json is no report"):
        find_results([str(tmp_path)], store)
