"""Whether a raster says where it lies, and whether that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ovrs.data import tiff
from ovrs.errors import DataError
from ovrs.raster.ground import is_located

if TYPE_CHECKING:
    from rasterio.io import DatasetReader


def position_note(dataset: DatasetReader) -> str:
    """Return what is to be said of where a raster lies; "" where it has a coordinate reference system.

    Raises:
        DataError: it names a coordinate reference system that cannot be read. A map would lose it.
    """
    from rasterio.errors import CRSError

    try:
        located = is_located(dataset.crs)
    except CRSError:
        located = None
    if located is None or (not (located or dataset.gcps[0]) and _names_crs(Path(dataset.name))):
        raise DataError(
            f"{dataset.name} names a coordinate reference system that cannot be read; set the right one: "
            "rio edit-info --crs EPSG:CODE FILE"
        )
    if dataset.gcps[0] and dataset.transform.is_identity:
        return "placed by ground control points only, which the map keeps; areas are in pixels (see gdalwarp)"
    if dataset.transform.is_identity:
        return "not georeferenced; areas are in pixels"
    return "" if located else "without a coordinate reference system that is known; areas are in pixels"


def _names_crs(path: Path) -> bool:
    """Whether a file names a place on the earth: in GeoTIFF keys, a VRT, or GDAL's file beside it.

    Coordinates of a building site and the like, of a system that lies nowhere in particular, do not count.
    """
    if not path.is_file():  # something that GDAL makes up
        return False
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(0)
        if start in tiff.TIFF_STARTS and any(page.names_crs for page in tiff.pages(stream)):
            return True
    return any(_has_srs(file) for file in (path, Path(f"{path}.aux.xml")) if file.suffix.lower() in (".vrt", ".xml"))


def _has_srs(path: Path) -> bool:
    try:
        text = ElementTree.parse(path).getroot().findtext("SRS")
    except (FileNotFoundError, ElementTree.ParseError):
        return False
    return bool(text and text.strip() and not text.startswith(("LOCAL_CS", "ENGCRS")))
