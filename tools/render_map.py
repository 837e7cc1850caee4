#!/usr/bin/env python3
"""Draw a map as QGIS shows it: in the colours of its .qml, which must be those of the GeoTIFF, with a legend.

Example:
    python tools/render_map.py output/maps/scene_labels.tif --output scene.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ovrs.engine import readable_errors
from ovrs.raster.overlay import draw_styled
from ovrs.visualization import save_image


def main() -> None:
    """Parse arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="STEM_labels.tif, with STEM_labels.qml beside it")
    parser.add_argument("--output", default="map.png", help="the picture (default: %(default)s)")
    args = parser.parse_args()
    with readable_errors():
        print(save_image(args.output, draw_styled(args.labels)))


if __name__ == "__main__":
    main()
