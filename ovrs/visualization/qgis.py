"""Styles that QGIS takes up by itself when it opens the file beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ovrs.errors import DataError
from ovrs.files import replacing

_DOCTYPE = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def write_qml(path: Path, names: Sequence[str], colours: np.ndarray) -> None:
    """Write the style of a raster of labels: a colour and a name for every value from 0.

    Args:
        path: the raster's path with the ending ``.qml``.
        names: of the values.
        colours: [T, 3] RGB.
    """
    root = ElementTree.Element(
        "qgis", version="3.0", styleCategories="AllStyleCategories", hasScaleBasedVisibilityFlag="0"
    )
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    entries = ElementTree.SubElement(renderer, "colorPalette")
    for value, (name, colour) in enumerate(zip(names, colours.tolist(), strict=True)):
        text = "#{:02x}{:02x}{:02x}".format(*colour)
        ElementTree.SubElement(entries, "paletteEntry", value=str(value), color=text, label=name, alpha="255")
    ElementTree.SubElement(root, "blendMode").text = "0"
    ElementTree.indent(root)
    with replacing(path) as temporary:
        temporary.write_bytes(_DOCTYPE + ElementTree.tostring(root, encoding="utf-8"))


def read_qml(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and colours [T, 3] of a style that :func:`write_qml` wrote, in the order of the values.

    Raises:
        DataError: no such file, or another kind of style.
    """
    try:
        entries = ElementTree.parse(path).getroot().findall("./pipe/rasterrenderer[@type='paletted']/colorPalette/*")
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"the style {path} cannot be read ({error}); make the map again.") from None
    if [entry.get("value") for entry in entries] != [str(value) for value in range(len(entries))] or not entries:
        raise DataError(f"the style {path} does not give a colour to each of the values 0, 1, 2, ...")
    colours = [list(bytes.fromhex(entry.get("color", "")[1:])) for entry in entries]
    return tuple(entry.get("label", "") for entry in entries), np.array(colours, np.uint8)
