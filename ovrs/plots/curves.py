"""Curves of training: losses, rates and scores over iterations, several runs in one plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from ovrs.engine.output import METRICS_NAME
from ovrs.errors import EvaluationError, shortened
from ovrs.evaluation.report import AVERAGE, JSON_NAME
from ovrs.plots.sources import Measured, check_same_protocol, results_of_report
from ovrs.visualization import palette
from ovrs.visualization.figures import figure_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATTERNS = ("*loss*", "teacher_entropy", "lr", "*/mIoU")
_COLUMNS = 2

Series = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Run:
    """What a training logged.

    Attributes:
        label: what to call it.
        series: {name: (iterations, values)}.
        folder: its output folder.
    """

    label: str
    series: Mapping[str, Series]
    folder: Path

    @classmethod
    def read(cls, folder: str | Path, label: str = "") -> Run:
        """Read ``metrics.json`` of an output folder, or such a file itself; a line that was cut off is passed over.

        Raises:
            EvaluationError: there is none, or it holds no metrics.
        """
        path = Path(folder)
        path = path / METRICS_NAME if path.is_dir() else path
        if not path.is_file():
            raise EvaluationError(f"{path} does not exist; name the output folder of a training.")
        series: dict[str, Series] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:  # the run was killed while it wrote this
                continue
            if not isinstance(values, dict) or "iteration" not in values:
                raise EvaluationError(f"{path} holds no metrics of a training; name the output folder of one.")
            for name, value in values.items():
                iterations, numbers = series.setdefault(name, ([], []))
                iterations.append(values["iteration"])
                numbers.append(value)
        if not series:
            raise EvaluationError(f"{path} is empty: the training has logged nothing yet.")
        return cls(label or path.parent.name, series, path.parent)


def draw_curves(runs: Sequence[Run], patterns: Sequence[str] = PATTERNS, differing: bool = False) -> Figure:
    """Draw what runs logged, a panel per quantity and a colour per run.

    Values are as logged: medians over 20 iterations for losses. A quantity that is the same as another one (the loss,
    where there is one; the mean of a single data set) is drawn once.

    Args:
        runs: at least one.
        patterns: names of quantities, with ``*`` for any letters.
        differing: whether scores that were measured under different protocols may stand in one panel; how they differ
            is then written below.

    Raises:
        EvaluationError: nothing to draw, or scores of different protocols.
    """
    names = _wanted(runs, patterns)
    remarks = _check_scores(runs, names, differing)
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    drawn = figure_of(4.2 * columns, 2.6 * rows + 0.25 * (len(runs) + len(remarks)) + 0.3)
    panels = drawn.subplots(rows, columns, squeeze=False).flat
    colours = palette(len(runs)) / 255
    for name, axes in zip(names, panels, strict=False):
        for run, colour in zip(runs, colours, strict=True):
            if name in run.series:
                iterations, values = run.series[name]
                axes.plot(iterations, values, color=colour, linewidth=1.2, marker="." if len(values) < 30 else None)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(panels):
        axes.remove()
    drawn.supxlabel("\n".join(["iteration", *remarks]), fontsize=8 if not remarks else 6, wrap=True)
    drawn.legend(handles=_legend(runs, colours), loc="outside upper left", fontsize=8, frameon=False)
    return drawn


def _wanted(runs: Sequence[Run], patterns: Sequence[str]) -> list[str]:
    logged = dict.fromkeys(name for run in runs for name in run.series)
    matching = [name for pattern in patterns for name in sorted(logged) if fnmatch(name, pattern)]
    names: list[str] = []
    for name in dict.fromkeys(sorted(matching, key=lambda name: name != "total_loss")):
        # NaN is not equal to itself, its text is
        curves = [str(run.series.get(name)) for run in runs]
        if not any(curves == [str(run.series.get(other)) for run in runs] for other in names):
            names.append(name)
    if not names:
        raise EvaluationError(
            f"no logged quantity is called {' or '.join(patterns)}; there are {shortened(sorted(logged), 20)}."
        )
    return names


def _check_scores(runs: Sequence[Run], names: Sequence[str], differing: bool) -> list[str]:
    """Compare the protocols of the runs' newest evaluations, for every data set whose score is drawn."""
    drawn = {name.rpartition("/")[0] for name in names if "/" in name}
    if len(runs) == 1 or not drawn:
        return []
    remarks: dict[str, None] = {}
    measured: dict[str, list[Measured]] = {}
    for run in runs:
        reports = sorted(run.folder.glob(f"evaluation_*/{JSON_NAME}"))
        if not reports:
            remarks[f"{run.label}: the protocol of its scores is not known, {run.folder} has no report"] = None
        for result in results_of_report(reports[-1]) if reports else ():
            if drawn & {result.dataset, AVERAGE}:
                measured.setdefault(result.dataset, []).append(Measured(result, run.label))
    for dataset, results in measured.items():
        remarks |= dict.fromkeys(check_same_protocol(results, differing))
        if AVERAGE in drawn and len(results) < len(runs):
            remarks[f"{AVERAGE}: {dataset} was measured in {', '.join(each.label for each in results)} alone"] = None
    return list(remarks)


def _legend(runs: Sequence[Run], colours: Sequence[object]) -> list[object]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=colour, label=run.label) for run, colour in zip(runs, colours, strict=True)]
