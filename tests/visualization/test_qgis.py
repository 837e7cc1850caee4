from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from ovrs.visualization import write_qml


def test_style_has_value_name_and_colour_of_every_class(tmp_path):
    path = tmp_path / "a map.qml"
    write_qml(path, ["Häuser & <roofs>", "water"], np.array([[255, 0, 16], [0, 0, 255]], np.uint8))
    entries = ElementTree.parse(path).getroot().findall("./pipe/rasterrenderer[@type='paletted']/colorPalette/*")
    assert [entry.attrib for entry in entries] == [
        {"value": "0", "color": "#ff0010", "label": "Häuser & <roofs>", "alpha": "255"},
        {"value": "1", "color": "#0000ff", "label": "water", "alpha": "255"},
    ]
