"""Deciding how a raster is read: bands, range of values, ground size, area; and saying so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ovrs.data.rasters import read_orientation
from ovrs.errors import DataError
from ovrs.raster.aoi import area_of_interest
from ovrs.raster.grid import Axis, origin_pixels
from ovrs.raster.ground import ground_sizes
from ovrs.raster.model import ModelInfo
from ovrs.raster.opening import check_path, opened
from ovrs.raster.options import RasterOptions
from ovrs.raster.position import position_note

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

_PERCENTILES = (2.0, 98.0)
_SAMPLE = 1024  # side of the reduced raster, in pixels, that percentiles are taken from
_SAMPLED_BLOCKS = 16  # along a side, of large rasters without overviews
_SAMPLED_SIDE = 64
_MOST_ENLARGED = 64


@dataclass(frozen=True)
class Scene:
    """How one raster is read. It can be sent to another process.

    Attributes:
        path: the raster.
        bands: three band numbers, or one for a grey or palette image.
        lookup: [256, 3] colours of a palette image's values, else ``None``.
        low, high: per band of ``bands``, the values that become 0 and 255; empty for 8-bit values as they are.
        rows, columns: the windows.
        area: raster pixels (top, bottom, left, right) that are mapped.
        aoi: polygons (GeoJSON geometries in the raster's CRS) outside of which nothing is mapped; empty for all.
        masked: whether there may be pixels without data.
        allow_remote: see the options.
        notes: what was decided, one sentence each.
        orientation: how a photograph is turned for the model (EXIF, 1 to 8); maps stay in the grid of the file.
    """

    path: str
    bands: tuple[int, ...]
    lookup: np.ndarray | None
    low: tuple[float, ...]
    high: tuple[float, ...]
    rows: Axis
    columns: Axis
    area: tuple[int, int, int, int]
    aoi: tuple[dict[str, Any], ...]
    masked: bool
    allow_remote: bool
    notes: tuple[str, ...]
    orientation: int = 1

    def decisions(self) -> dict[str, Any]:
        """Return what must be the same for a run to go on, ready for JSON."""
        return {
            "bands": list(self.bands),
            "low": list(self.low),
            "high": list(self.high),
            "rows": vars(self.rows),
            "columns": vars(self.columns),
            "area": list(self.area),
            "aoi": list(self.aoi),
            "orientation": self.orientation,
        }


def describe(path: str, options: RasterOptions, info: ModelInfo) -> Scene:
    """Look at a raster and decide how to read it.

    Raises:
        DataError: it cannot be read, or not as the options want.
    """
    path = check_path(path, options.allow_remote)
    with opened(path, options.allow_remote) as dataset:
        place_note = position_note(dataset)
        area, aoi = area_of_interest(dataset, options.aoi)
        pixels = (area[1] - area[0]) * (area[3] - area[2])
        if pixels > options.max_pixels:
            raise DataError(
                f"{path} has {pixels:.3g} pixels, more than the limit of {options.max_pixels:.3g}; "
                "map a part with --aoi, or raise --max-pixels."
            )
        bands, lookup, band_note = _bands(dataset, options.bands)
        low, high, range_note = _range(dataset, bands, lookup, options.value_range)
        scales, gsd_note = _scales(dataset, options.gsd)
        stride = max(round(info.kernel * (1 - options.overlap) / info.cell), 1) * info.cell
        axes = [
            Axis.anchored(pixels, origin, info.kernel, stride, info.cell, scale)
            for pixels, origin, scale in zip(dataset.shape, origin_pixels(dataset.transform), scales, strict=True)
        ]
        photograph = dataset.driver in ("JPEG", "PNG") and dataset.transform.is_identity
        orientation = read_orientation(path) if photograph else 1
        turn_note = "turned as its header says for the model; the map keeps the grid of the file"
        notes = (band_note, range_note, gsd_note, place_note, turn_note if orientation > 1 else "")
        floating = np.issubdtype(np.dtype(dataset.dtypes[bands[0] - 1]), np.floating)
        all_valid = all([flag.name for flag in flags] == ["all_valid"] for flags in dataset.mask_flag_enums)
        return Scene(
            path=path,
            bands=bands,
            lookup=lookup,
            low=low,
            high=high,
            rows=axes[0],
            columns=axes[1],
            area=area,
            aoi=aoi,
            masked=floating or not all_valid,
            allow_remote=options.allow_remote,
            notes=tuple(note for note in notes if note),
            orientation=orientation,
        )


def _bands(dataset: DatasetReader, wanted: tuple[int, ...]) -> tuple[tuple[int, ...], np.ndarray | None, str]:
    """Return band numbers, a palette or ``None``, and what was decided."""
    from rasterio.enums import ColorInterp

    meaning = dataset.colorinterp
    if missing := [band for band in wanted if band > dataset.count]:
        raise DataError(f"{dataset.name} has {dataset.count} bands, but --bands asks for band {missing[0]}.")
    lookup, note = None, ""
    if wanted:
        bands = wanted
    elif {ColorInterp.red, ColorInterp.green, ColorInterp.blue} <= set(meaning):
        bands = tuple(meaning.index(colour) + 1 for colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue))
        if bands != (1, 2, 3):
            note = f"bands {_listed(bands)} by the file's colour interpretation"
    else:
        bands = tuple(number for number, colour in enumerate(meaning, 1) if colour is not ColorInterp.alpha)
        if not bands:
            raise DataError(f"{dataset.name} has no band but alpha; name one with --bands.")
        if dataset.count == 1 and meaning[0] is ColorInterp.palette:
            table = dataset.colormap(1)
            lookup = np.array([table.get(value, (0, 0, 0, 0))[:3] for value in range(256)], np.uint8)
        if len(bands) > 3:
            note = (
                f"bands 1, 2, 3 of {len(bands)} taken for red, green, blue: the file does not say which they are "
                "(choose with --bands)"
            )
        bands = bands[:3] if len(bands) >= 3 else bands[:1]
    kinds = {dataset.dtypes[band - 1] for band in bands}
    if len(kinds) > 1 or any("complex" in kind for kind in kinds):
        raise DataError(
            f"{dataset.name}: bands {_listed(bands)} are {_listed(sorted(kinds))}; choose others (--bands)."
        )
    return bands, lookup, note


def _range(
    dataset: DatasetReader, bands: tuple[int, ...], lookup: np.ndarray | None, wanted: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Return the lowest and highest value per band, and what was decided."""
    if wanted:
        low, high = (tuple(float(value) for value in wanted[start::2]) for start in (0, 1))
        if len(low) == 1:
            low, high = low * len(bands), high * len(bands)
        if len(low) != len(bands):
            raise DataError(f"{dataset.name}: --range has values for three bands, but one band is read.")
        return low, high, ""
    if dataset.dtypes[bands[0] - 1] == "uint8" or lookup is not None:
        bits = int(dataset.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8))
        return (
            ((), (), "")
            if bits == 8 or lookup is not None
            else ((0.0,) * len(bands), (2.0**bits - 1,) * len(bands), "")
        )
    low, high = [], []
    for values in _sample(dataset, bands):
        bottom, top = np.percentile(values, _PERCENTILES) if values.size else (0.0, 1.0)
        low.append(float(bottom))
        high.append(float(top) if top > bottom else float(bottom) + 1.0)
    texts = [f"{bottom:g} to {top:g}" for bottom, top in zip(low, high, strict=True)]
    return (
        tuple(low),
        tuple(high),
        f"values {_listed(texts)} scaled to 0 to 255 (2nd and 98th percentile; choose with --range)",
    )


def _sample(dataset: DatasetReader, bands: tuple[int, ...]) -> list[np.ndarray]:
    """Return valid values of each band: of its overviews, or of blocks all over a large raster without any."""
    from rasterio.windows import Window

    height, width = dataset.shape
    if dataset.overviews(bands[0]) or height * width <= (4 * _SAMPLE) ** 2:
        factor = max(height / _SAMPLE, width / _SAMPLE, 1.0)
        places = [(None, (math.ceil(height / factor), math.ceil(width / factor)))]
    else:
        side_y, side_x = min(_SAMPLED_SIDE, height), min(_SAMPLED_SIDE, width)
        corners = [
            (round(top), round(left))
            for top in np.linspace(0, height - side_y, _SAMPLED_BLOCKS)
            for left in np.linspace(0, width - side_x, _SAMPLED_BLOCKS)
        ]
        places = [(Window(left, top, side_x, side_y), (side_y, side_x)) for top, left in corners]
    found: list[list[np.ndarray]] = [[] for _ in bands]
    for window, shape in places:
        values = dataset.read(bands, window=window, out_shape=(len(bands), *shape))
        valid = dataset.dataset_mask(window=window, out_shape=shape) > 0
        for band, plane in zip(found, values, strict=True):
            band.append(plane[valid & np.isfinite(plane)].astype(np.float64))
    return [np.concatenate(band) for band in found]


def _scales(dataset: DatasetReader, gsd: float) -> tuple[tuple[float, float], str]:
    """Return raster pixels per canvas pixel (along rows' axis, along columns' axis), and what was decided."""
    if not gsd:
        return (1.0, 1.0), ""
    sizes = ground_sizes(dataset.transform, dataset.crs, *dataset.shape)
    if sizes is None:
        raise DataError(f"{dataset.name} does not say how large its pixels are on the ground; leave --gsd out.")
    # A size that differs in the last digits only is the raster's own.
    scales = tuple(1.0 if abs(gsd / size - 1) < 1e-3 else gsd / size for size in sizes)
    if scales == (1.0, 1.0):
        return scales, ""
    if min(scales) < 1 / _MOST_ENLARGED:
        raise DataError(
            f"{dataset.name} has pixels of {max(sizes):.3g} m; a ground size of {gsd:g} m enlarges them more than "
            f"{_MOST_ENLARGED} times, which shows nothing. Give a larger --gsd, or 0."
        )
    return scales, f"pixels of {sizes[0]:.3g} x {sizes[1]:.3g} m resampled to {gsd:g} m for the model"


def _listed(items: Any) -> str:
    return ", ".join(map(str, items))
