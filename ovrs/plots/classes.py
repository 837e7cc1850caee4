"""Bars of every class's IoU, several results side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovrs.errors import ConfigError, choose
from ovrs.evaluation.confusion import CLASS_FIGURES
from ovrs.evaluation.report import NO_VALUE
from ovrs.evaluation.seen import SEEN_FIGURES, seen_and_unseen
from ovrs.plots.sources import Measured, check_same_protocol
from ovrs.visualization import palette
from ovrs.visualization.figures import figure_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNSEEN, UNSEEN_WORDS = "////", "unseen in training"  # hatch, and what the legend says of it
_WIDTH, _MARGIN = 7.5, 1.6  # inches
_BAR, _GAP = 0.16, 0.12  # inches: a bar, and what lies between two classes
_MOST = 8  # results that can be told apart


def draw_classes(
    results: Sequence[Measured], *, figure: str = "IoU", differing: bool = False, title: str = ""
) -> Figure:
    """Draw a figure of every class as bars, a colour per result; hatched are classes that training did not know.

    Args:
        results: of one data set, at most eight.
        figure: one of ``CLASS_FIGURES``.
        differing: whether results of different protocols may stand side by side; how they differ is then written below.
        title: "" takes the data set's name.

    Raises:
        ConfigError: no result or too many, or an unknown figure.
        EvaluationError: other classes, or other protocols.
    """
    if not 1 <= len(results) <= _MOST:
        raise ConfigError(f"between 1 and {_MOST} results can be drawn side by side, got {len(results)}.")
    choose("--figure", figure, CLASS_FIGURES)
    remarks = check_same_protocol(results, differing)
    names = list(results[0].result.classes)
    height = _MARGIN + 0.2 * (len(results) + len(remarks)) + len(names) * (_GAP + _BAR * len(results))
    drawn = figure_of(_WIDTH, height)
    axes = drawn.subplots()
    step = _BAR * len(results) + _GAP
    for number, (each, colour) in enumerate(zip(results, palette(len(results)) / 255, strict=True)):
        values = np.array([each.result.classes[name].get(figure, math.nan) for name in names])
        places = np.arange(len(names)) * step + number * _BAR
        bars = axes.barh(places, np.nan_to_num(values), _BAR, color=colour, edgecolor="black", linewidth=0.4)
        bars.set_label(_label(each))
        for name, bar, value, place in zip(names, bars, values, places, strict=True):
            if each.seen is not None and not each.seen[name]:
                bar.set_hatch(UNSEEN)
            text = f"{value:.1f}" if math.isfinite(value) else NO_VALUE
            axes.text(np.nan_to_num(value) + 0.7, place, text, va="center", fontsize=6)
    axes.set_yticks(np.arange(len(names)) * step + _BAR * (len(results) - 1) / 2, names)
    axes.set(xlim=(0, 107), xticks=range(0, 101, 20), xlabel=f"{figure} (%)", title=title or results[0].result.dataset)
    axes.set_ylim(len(names) * step - _GAP, -_GAP - _BAR / 2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(handles=_legend(axes.containers, results), loc="outside upper left", fontsize=7, frameon=False)
    if remarks:
        drawn.supxlabel("\n".join(remarks), fontsize=6, x=0.01, ha="left", wrap=True)
    return drawn


def _label(each: Measured) -> str:
    parts = [f"mIoU {each.result.figures['mIoU']:.2f}"]
    if each.seen is None:
        parts.append("training classes unknown")
    else:
        ious = {name: figures["IoU"] for name, figures in each.result.classes.items()}
        means = seen_and_unseen(ious, each.seen)
        parts += [f"{name} {means[name]:.2f}" for name in SEEN_FIGURES if math.isfinite(means[name])]
    return f"{each.label} ({', '.join(parts)})"


def _legend(bars: Sequence[object], results: Sequence[Measured]) -> list[object]:
    """Return the handles: a patch per result, without the hatch of its first bar, and one that explains the hatch."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=each.patches[0].get_facecolor(), edgecolor="black", linewidth=0.4, label=each.get_label())
        for each in bars
    ]
    if any(each.seen is not None and not all(each.seen.values()) for each in results):
        handles.append(Patch(facecolor="white", edgecolor="black", linewidth=0.4, hatch=UNSEEN, label=UNSEEN_WORDS))
    return handles
