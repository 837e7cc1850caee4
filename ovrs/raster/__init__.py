"""Maps from rasters of any size: windows on a grid in map coordinates, blended, written as GeoTIFF and polygons."""

from ovrs.raster.executors import Executor, LocalExecutor, ProcessExecutor
from ovrs.raster.maps import map_rasters
from ovrs.raster.model import ModelInfo, WindowModel
from ovrs.raster.options import RasterOptions

__all__ = [
    "Executor",
    "LocalExecutor",
    "ModelInfo",
    "ProcessExecutor",
    "RasterOptions",
    "WindowModel",
    "map_rasters",
]
