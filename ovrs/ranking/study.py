"""The three files that an experiment leaves: all numbers, a page and a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovrs.files import replacing
from ovrs.visualization import plot_families
from ovrs.visualization.figures import figure_of, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(columns: int = 1) -> Figure:
    """Return an empty figure for ``columns`` plots side by side."""
    return figure_of(5.5 * columns, 4)


def write_study(stem: str | Path, content: dict[str, Any], page: str, figure: Figure) -> list[Path]:
    """Write STEM.json, STEM.md and STEM.png, each in full or not at all.

    Args:
        stem: path without ending; its folder is made if needed.
        content: finite numbers, texts, lists and dicts.
        page: Markdown.
        figure: the plot.

    Returns:
        The paths, in that order.
    """
    stem = Path(stem)
    paths = [stem.with_name(stem.name + ending) for ending in (".json", ".md", ".png")]
    texts = (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", page)
    for path, text in zip(paths[:2], texts, strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for text in figure.findobj(lambda part: hasattr(part, "set_fontfamily")):
        text.set_fontfamily(plot_families())
    save_figure(figure, paths[2])
    return paths
