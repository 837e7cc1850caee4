"""What can be chosen when a raster becomes a map."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ovrs.errors import ConfigError, UserError, choose

VECTOR_FORMATS = ("", "gpkg", "geojson", "parquet")


@dataclass(frozen=True)
class RasterOptions:
    """How rasters are read and what is written.

    Attributes:
        bands: numbers (from 1) of the bands that stand for red, green and blue, or of one grey band; empty: by the
            file's colour interpretation, else the first three.
        value_range: (low, high) of the values that become 0 and 255, or one such pair per band, one after another.
            Empty: 8-bit values stay, others are scaled from their 2nd to their 98th percentile over the whole raster.
        gsd: metres per pixel that the model sees; 0: the raster's own pixels.
        aoi: area of interest, the rest becomes nodata: (left, bottom, right, top) in the raster's CRS, or a polygon
            file (GeoJSON, GeoPackage, …). The map is cut to its bounds.
        overlap: fraction of a window that neighbours share, 0 to 0.9.
        confidence: whether the winner's probability is written (a byte, 0 to 254 for 0 to 1).
        scores: whether the probabilities of all classes are written (like ``confidence``, a band per class).
        overlay: whether a picture of raster and map side by side is written, with a legend.
        vector: format of polygons, one of :data:`VECTOR_FORMATS`; empty for none.
        min_area: polygons of fewer square metres become part of the neighbour with the longest common border.
        simplify: how far outlines of polygons may be straightened, in pixels; common borders stay common.
        planar: areas in the plane of the raster's CRS instead of on the ellipsoid.
        colours: {word: "#rrggbb"} for some of the classes.
        resume: go on with what an earlier run left, and skip what it finished.
        overwrite: replace files of the results' names that no earlier run made; without it they are refused.
        allow_remote: accept URLs and GDAL's ``/vsi`` paths.
        max_pixels: rasters (or areas of interest) of more pixels are refused.
        memory: MiB that scores may take while windows are blended.
    """

    bands: tuple[int, ...] = ()
    value_range: tuple[float, ...] = ()
    gsd: float = 0.0
    aoi: str | Path | tuple[float, float, float, float] | None = None
    overlap: float = 1 / 3
    confidence: bool = False
    scores: bool = False
    overlay: bool = False
    vector: str = ""
    min_area: float = 0.0
    simplify: float = 0.0
    planar: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False
    allow_remote: bool = False
    max_pixels: int = 10**11
    memory: int = 256

    def __post_init__(self) -> None:
        if self.vector:
            require("--vector", "shapely", "pyogrio", "pyarrow", extra="vector")
        choose("vector", self.vector, VECTOR_FORMATS)
        if len(self.bands) not in (0, 1, 3) or any(band < 1 for band in self.bands):
            raise ConfigError(f"bands must be one or three numbers from 1, got {list(self.bands)}.")
        pairs = list(zip(self.value_range[::2], self.value_range[1::2], strict=False))
        if len(self.value_range) not in (0, 2, 6) or any(not low < high for low, high in pairs):
            raise ConfigError(
                f"value_range must be LOW HIGH, or that for each of three bands, LOW below HIGH; "
                f"got {list(self.value_range)}."
            )
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(f"overlap must be from 0 to 0.9, got {self.overlap}.")
        for name in ("gsd", "min_area", "simplify"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if isinstance(self.aoi, tuple) and not (
            len(self.aoi) == 4 and self.aoi[0] < self.aoi[2] and self.aoi[1] < self.aoi[3]
        ):
            raise ConfigError(f"aoi must be LEFT BOTTOM RIGHT TOP, got {self.aoi}.")


def require(option: str, *packages: str, extra: str) -> None:
    """Raise a UserError, which says how to install them, if optional packages are missing."""
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise UserError(f"{option} needs {', '.join(missing)}; install with: pip install 'ovrs[{extra}]'")
