"""Colours of classes, pictures of label maps and numbers, and styles for geographic information systems."""

from ovrs.visualization.fonts import draw_text, plot_families
from ovrs.visualization.heat import Scale, heat, heat_overlay, matrix, principal_colours
from ovrs.visualization.palettes import IGNORED_COLOUR, class_colours, palette, tell_apart
from ovrs.visualization.pictures import Picture, colourise, legend, overlay, save_image
from ovrs.visualization.qgis import read_qml, write_qml
from ovrs.visualization.sheets import (
    SHEET_ALPHA,
    Compared,
    Row,
    comparison_sheet,
    fitted,
    models_sheet,
    sheet,
)

__all__ = [
    "IGNORED_COLOUR",
    "SHEET_ALPHA",
    "Compared",
    "Picture",
    "Row",
    "Scale",
    "class_colours",
    "colourise",
    "comparison_sheet",
    "draw_text",
    "fitted",
    "heat",
    "heat_overlay",
    "legend",
    "matrix",
    "models_sheet",
    "overlay",
    "palette",
    "plot_families",
    "principal_colours",
    "read_qml",
    "save_image",
    "sheet",
    "tell_apart",
    "write_qml",
]
