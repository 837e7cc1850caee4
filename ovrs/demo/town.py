"""A larger scene with a place on the earth: what the map at the end of the demonstration is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovrs.demo.canvas import CLASS_COLOURS
from ovrs.demo.dataset import GENERATOR_VERSION, GSD_M
from ovrs.demo.scene import render_scene
from ovrs.files import replacing

SIZE = 1024  # pixels a side: half a kilometre
CRS = "EPSG:32632"  # UTM zone 32 north
UPPER_LEFT = (431_000.0, 5_437_000.0)  # easting and northing in metres
SEED = 36  # a scene with something of every class, and a river


def write_town(folder: str | Path, size: int = SIZE) -> tuple[Path, Path]:
    """Write a scene, which belongs to no split, and its labels as GeoTIFFs, unless they are there.

    Returns:
        ``town.tif`` (RGB) and ``town_truth.tif`` (class ids with colours), on one grid.
    """
    files = Path(folder, "town.tif"), Path(folder, "town_truth.tif")
    drawn = {"generator": str(GENERATOR_VERSION), "seed": str(SEED), "size": str(size)}
    if not all(_tags(file).items() >= drawn.items() for file in files):
        image, labels = render_scene(np.random.default_rng([SEED, size]), size)
        _write(files[0], image.transpose(2, 0, 1), drawn)
        _write(files[1], labels[None], drawn, CLASS_COLOURS)
    return files


def _tags(file: Path) -> dict[str, str]:
    import rasterio

    if not file.is_file():
        return {}
    with rasterio.open(file) as raster:
        return raster.tags()


def _write(
    file: Path, bands: NDArray[np.uint8], tags: dict[str, str], colours: NDArray[np.uint8] | None = None
) -> None:
    """Write bands [C, size, size] as a GeoTIFF."""
    import rasterio
    from rasterio.transform import from_origin

    count, height, width = bands.shape
    place = {"crs": CRS, "transform": from_origin(*UPPER_LEFT, GSD_M, GSD_M)}
    shape = {"count": count, "height": height, "width": width, "dtype": "uint8"}
    with (
        replacing(file) as temporary,
        rasterio.open(temporary, "w", driver="GTiff", compress="deflate", **shape, **place) as raster,
    ):
        raster.write(bands)
        raster.update_tags(**tags)
        if colours is not None:
            raster.write_colormap(1, {index: tuple(colour) for index, colour in enumerate(colours.tolist())})
