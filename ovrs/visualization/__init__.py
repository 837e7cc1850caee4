"""Colours of classes, pictures of label maps, and styles for geographic information systems."""

from ovrs.visualization.fonts import draw_text, plot_families
from ovrs.visualization.palettes import IGNORED_COLOUR, class_colours, palette, tell_apart
from ovrs.visualization.pictures import (
    SHEET_ALPHA,
    Picture,
    colourise,
    comparison_sheet,
    legend,
    overlay,
    save_image,
)
from ovrs.visualization.qgis import write_qml

__all__ = [
    "IGNORED_COLOUR",
    "SHEET_ALPHA",
    "Picture",
    "class_colours",
    "colourise",
    "comparison_sheet",
    "draw_text",
    "legend",
    "overlay",
    "palette",
    "plot_families",
    "save_image",
    "tell_apart",
    "write_qml",
]
