"""tools/render_map.py: the picture that it writes, and how it refuses."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from ovrs.visualization import write_qml


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_map_is_drawn_in_the_colours_of_its_style_or_refused(run_tool, tmp_path):
    path, colours = tmp_path / "a_labels.tif", np.array([[255, 0, 16], [0, 0, 255]], np.uint8)
    values = np.repeat(np.array([[0, 1]], np.uint8), 150, axis=1).repeat(20, axis=0)
    with rasterio.open(path, "w", "GTiff", 300, 20, 1, dtype="uint8", nodata=255) as file:
        file.write_colormap(1, dict(enumerate(map(tuple, colours))))
        file.update_tags(OVRS_CLASSES='["roof", "water"]')
        file.write(values, 1)
    with pytest.raises(SystemExit) as caught:
        run_tool("render_map", path)
    assert "a_labels.qml cannot be read" in caught.value.code
    write_qml(path.with_suffix(".qml"), ["roof", "water"], colours)
    assert "b.png" in run_tool("render_map", path, "--output", tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png"))[:20], colours[values])
