"""From parts of a map to one cloud-optimised GeoTIFF."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from ovrs.files import replacing
from ovrs.raster.opening import environment, readable

if TYPE_CHECKING:
    from affine import Affine
    from rasterio.control import GroundControlPoint
    from rasterio.crs import CRS

_VRT_TYPES = {"uint8": "Byte", "uint16": "UInt16"}


@dataclass(frozen=True)
class Part:
    """A finished rectangle of a map: its file and its place in the map, in pixels."""

    path: Path
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Layer:
    """What one file of a map holds.

    Attributes:
        dtype: ``uint8`` or ``uint16``.
        nodata: value of pixels without a result.
        bands: description of every band.
        resampling: of the overviews.
        scale: what a stored value is multiplied with to get what it means.
        categories: names of the values from 0, or empty.
        colours: [n, 3] of these values.
        tags: text metadata.
    """

    dtype: str
    nodata: int
    bands: tuple[str, ...]
    resampling: str
    scale: float = 1.0
    categories: tuple[str, ...] = ()
    colours: np.ndarray | None = None
    tags: Mapping[str, str] = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Place:
    """Where a map lies: its size in pixels, and its transform and CRS or its ground control points."""

    height: int
    width: int
    transform: Affine
    crs: CRS | None
    gcps: tuple[GroundControlPoint, ...] = ()
    gcp_crs: CRS | None = None


def write_part(path: Path, values: np.ndarray, nodata: int) -> None:
    """Write a part [bands, h, w] in full or not at all."""
    import rasterio
    from rasterio.io import MemoryFile

    profile = {"driver": "GTiff", "dtype": values.dtype, "compress": "deflate", "zlevel": 1, "nodata": nodata}
    with MemoryFile() as memory:
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False),
            memory.open(count=len(values), height=values.shape[1], width=values.shape[2], **profile) as dataset,
        ):
            dataset.write(values)
        # Written by Python: GDAL tells of a full disk when a file is closed, where it is easily missed.
        with replacing(path) as temporary:
            temporary.write_bytes(memory.getbuffer())


def is_whole(part: Part) -> bool:
    """Return whether a part's file is there and can be read to its end."""
    import rasterio
    from rasterio.errors import RasterioError

    if not part.path.is_file():
        return False
    try:
        with environment(), rasterio.open(part.path) as dataset:
            return dataset.read().shape[1:] == (part.height, part.width)
    except RasterioError:
        return False


def write_mosaic(path: Path, parts: Sequence[Part], layer: Layer, place: Place) -> None:
    """Join parts into a tiled, compressed GeoTIFF with overviews; ``path`` is there in full or not at all.

    Args:
        path: the file; category names go to ``path.aux.xml`` beside it, where GDAL looks for them.
        parts: they tile the map, and lie in one folder, which temporary files go to as well.
        layer: what it holds.
        place: where it lies.
    """
    import rasterio.shutil

    folder = parts[0].path.parent
    description = folder / f"{path.stem}.vrt"
    description.write_bytes(ElementTree.tostring(_virtual(parts, layer, place)))
    temporary = folder / f"{path.stem}.whole.tif"
    with environment(), readable(str(path)):
        rasterio.shutil.copy(
            str(description),
            str(temporary),
            driver="COG",
            COMPRESS="DEFLATE",
            BIGTIFF="IF_SAFER",
            OVERVIEW_RESAMPLING=layer.resampling,
            NUM_THREADS="ALL_CPUS",
        )
    beside = Path(f"{temporary}.aux.xml")
    if beside.exists():
        os.replace(beside, f"{path}.aux.xml")
    os.replace(temporary, path)


def _virtual(parts: Sequence[Part], layer: Layer, place: Place) -> ElementTree.Element:
    """Return GDAL's description of a raster that is made of others."""
    root = ElementTree.Element("VRTDataset", rasterXSize=str(place.width), rasterYSize=str(place.height))
    if place.crs is not None:
        _child(root, "SRS", place.crs.to_wkt(version="WKT2_2019"))
    if not place.transform.is_identity:
        _child(root, "GeoTransform", ", ".join(map(repr, place.transform.to_gdal())))
    if place.gcps:
        crs = place.gcp_crs.to_wkt(version="WKT2_2019") if place.gcp_crs else ""
        points = _child(root, "GCPList", Projection=crs)
        for number, point in enumerate(place.gcps, 1):
            _child(points, "GCP", Id=number, Pixel=point.col, Line=point.row, X=point.x, Y=point.y, Z=point.z or 0.0)
    tags = _child(root, "Metadata")
    for key, value in (layer.tags or {}).items():
        _child(tags, "MDI", value, key=key)
    for number, name in enumerate(layer.bands, 1):
        band = _child(root, "VRTRasterBand", dataType=_VRT_TYPES[layer.dtype], band=number)
        _child(band, "Description", name)
        _child(band, "NoDataValue", str(layer.nodata))
        if layer.scale != 1.0:
            _child(band, "Scale", repr(layer.scale))
        if layer.colours is not None:
            _child(band, "ColorInterp", "Palette")
            table = _child(band, "ColorTable")
            for red, green, blue in layer.colours.tolist():
                _child(table, "Entry", c1=red, c2=green, c3=blue, c4=255)
        if layer.categories:
            names = _child(band, "CategoryNames")
            for category in layer.categories:
                _child(names, "Category", category)
        for part in parts:
            source = _child(band, "SimpleSource")
            _child(source, "SourceFilename", part.path.name, relativeToVRT=1)
            _child(source, "SourceBand", str(number))
            _child(source, "SrcRect", xOff=0, yOff=0, xSize=part.width, ySize=part.height)
            _child(source, "DstRect", xOff=part.left, yOff=part.top, xSize=part.width, ySize=part.height)
    return root


def _child(parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: Any) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, {key: str(value) for key, value in attributes.items()})
    child.text = text
    return child
