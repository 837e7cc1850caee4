"""Curves of training, from what trainings log."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from ovrs.cli import main
from ovrs.errors import ConfigError, EvaluationError
from ovrs.evaluation import Report
from ovrs.plots import Run, draw_curves
from ovrs.visualization.figures import figure_of, save_figure


@pytest.fixture
def write_run(tmp_path, record):
    """Write a run: metrics of three lines, the last cut off, and the report of an evaluation."""

    def write(name: str, scale: float = 1.0, **changes):
        folder = tmp_path / name
        lines = [
            {
                "iteration": i,
                "total_loss": scale / i,
                "loss_sem_seg": scale / i,
                "lr": 0.1,
                "time": i,
                "town_val/mIoU": i,
            }
            for i in (20, 40)
        ]
        folder.mkdir()
        (folder / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"iterat')
        report = Report()
        result = record(**changes)
        report.add(result.dataset, result.figures, result.protocol)
        report.write(folder / "evaluation_0000040")
        return folder

    return write


def panels(figure) -> dict[str, list[list[float]]]:
    return {axes.get_title(): [list(line.get_ydata()) for line in axes.lines] for axes in figure.axes}


def test_every_quantity_has_a_panel_and_every_run_a_curve(write_run):
    runs = [Run.read(write_run("one")), Run.read(write_run("two", 2.0), "the second")]
    drawn = draw_curves(runs)
    assert panels(drawn) == {
        "total_loss": [[1 / 20, 1 / 40], [2 / 20, 2 / 40]],  # the same as loss_sem_seg, which is left out
        "lr": [[0.1, 0.1], [0.1, 0.1]],
        "town_val/mIoU": [[20, 40], [20, 40]],
    }
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["one", "the second"]
    assert list(drawn.axes[0].lines[0].get_xdata()) == [20, 40]
    assert list(panels(draw_curves(runs, ["tim*"]))) == ["time"]


def test_scores_of_other_protocols_are_refused_or_written_below(write_run):
    runs = [Run.read(write_run("one")), Run.read(write_run("two", test={"CROP_PADDING": False}))]
    with pytest.raises(EvaluationError, match=r"two differs from one: TEST\.CROP_PADDING is False, not True"):
        draw_curves(runs)
    assert "two differs from one" in draw_curves(runs, differing=True).get_supxlabel()
    assert draw_curves(runs, ["total_loss"]).get_supxlabel() == "iteration"


def test_averages_over_other_sets_are_marked(write_run):
    runs = [Run.read(write_run("one")), Run.read(write_run("two", dataset={"name": "city_val"}))]
    for run in runs:
        run.series["average/mIoU"] = ([20], [1.0])
    below = draw_curves(runs, ["average/mIoU"]).get_supxlabel()
    assert "average: town_val was measured in one alone" in below
    assert "average: city_val was measured in two alone" in below


def test_scores_without_a_report_are_marked(write_run):
    runs = [Run.read(write_run("one")), Run.read(write_run("two"))]
    (runs[1].folder / "evaluation_0000040/report.json").unlink()
    assert "two: the protocol of its scores is not known" in draw_curves(runs).get_supxlabel()


def test_what_is_no_run_is_refused(tmp_path, write_run):
    with pytest.raises(EvaluationError, match=r"metrics\.json does not exist; name the output folder"):
        Run.read(tmp_path)
    (tmp_path / "metrics.json").write_text("")
    with pytest.raises(EvaluationError, match="is empty"):
        Run.read(tmp_path)
    (tmp_path / "metrics.json").write_text("[1]\n")
    with pytest.raises(EvaluationError, match="holds no metrics"):
        Run.read(tmp_path)
    with pytest.raises(EvaluationError, match="no logged quantity is called los; there are iteration, loss_sem_seg"):
        draw_curves([Run.read(write_run("one"))], ["los"])


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_figures_are_written_the_same_twice_and_leave_nothing_else(tmp_path, ending):
    files = []
    for name in ("one", "two"):
        figure = figure_of(2, 1)
        figure.subplots().plot([1, 2])
        path = save_figure(figure, tmp_path / name / f"figure{ending}")
        assert list(path.parent.iterdir()) == [path]
        files.append(path.read_bytes())
    if ending == ".svg":  # names of its parts are drawn by chance
        files = [re.sub(rb'(id="|#)\w+', b"", file) for file in files]
    assert files[0] == files[1]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"the ending of .*figure\.jpg must be one of \.png, \.svg, \.pdf"):
        save_figure(figure_of(1, 1), tmp_path / "figure.jpg")


def run(capsys, *words) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return f"{end.value.code or ''}{capsys.readouterr().out}"


def test_commands_draw_list_and_refuse(tmp_path, write_run, record, store, capsys):
    store.add(record("a"))
    store.add(record("b"))
    listed = run(capsys, "plot", "classes")
    assert re.search(r"town_val/\w{8} +GSNetHead +a\.pth +40\.00 +2026-01-01", listed)
    out = tmp_path / "plots/bars.png"
    assert run(capsys, "plot", "classes", "town_val", "--labels", "A", "B", "--out", out).strip() == str(out)
    assert Image.open(out).size[0] == 1125
    assert "--labels has 1 texts for 2" in run(capsys, "plot", "classes", "town_val", "--labels", "A", "--out", out)
    curves = tmp_path / "plots/curves.pdf"
    assert run(capsys, "plot", "curves", write_run("one"), "--out", curves).strip() == str(curves)
    assert curves.read_bytes().startswith(b"%PDF")
    assert "must be one of .png" in run(capsys, "plot", "curves", tmp_path / "one", "--out", "curves.txt")
