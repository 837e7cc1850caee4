"""Figures of matplotlib: made without a window, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ovrs.errors import choose
from ovrs.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
# What would make two files of the same figure differ.
_DATES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure of ``width`` by ``height`` inches, which belongs to no window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def check_format(path: str | Path) -> Path:
    """Return the path of a figure to be written, or raise a ConfigError if its ending is none of ``FORMATS``."""
    choose(f"the ending of {path}", Path(path).suffix.lower(), FORMATS)
    return Path(path)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, SVG or PDF, by the ending of ``path``.

    Raises:
        ConfigError: another ending.
    """
    path = check_format(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata=_DATES.get(path.suffix.lower()))
    return path
