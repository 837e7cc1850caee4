"""Files of polygons, written piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from ovrs.errors import DataError
from ovrs.files import replacing
from ovrs.raster.ground import Ground


@dataclass(frozen=True)
class Features:
    """Polygons in map coordinates and what is known of each: class, its index, area, mean confidence in 0..1."""

    shapes: np.ndarray
    names: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    confidence: np.ndarray

    def columns(self, ground: Ground) -> dict[str, np.ndarray]:
        """Return the attributes by name."""
        return {
            "class": self.names,
            "label": self.labels,
            ground.field: self.areas,
            "measured": np.full(len(self.labels), ground.kind, object),
            "confidence": self.confidence,
        }


Write = Callable[[Features], None]


@contextmanager
def open_writer(path: Path, ground: Ground) -> Iterator[Write]:
    """Give a function that adds polygons to a new file, which is there in full or not at all.

    Args:
        path: ends in ``.gpkg``, ``.geojson`` (in longitude and latitude, as its standard wants) or ``.parquet``.
        ground: of the map.
    """
    kinds = {".gpkg": _geopackage, ".geojson": _geojson, ".parquet": _geoparquet}
    with replacing(path) as temporary, kinds[path.suffix](temporary, path.stem, ground) as write:
        yield write


@contextmanager
def _geopackage(path: Path, layer: str, ground: Ground) -> Iterator[Write]:
    import pyogrio

    def write(features: Features) -> None:
        columns = features.columns(ground)
        try:
            pyogrio.raw.write(
                path,
                shapely.to_wkb(features.shapes),
                list(columns.values()),
                list(columns),
                layer=layer,
                driver="GPKG",
                geometry_type="Polygon",
                crs=None if ground.crs is None else ground.crs.to_wkt(),
                append=path.exists(),
            )
        except pyogrio.errors.DataSourceError as error:
            raise DataError(f"{path} cannot be written ({error}); is the disk full?") from None

    write(_nothing())
    yield write


@contextmanager
def _geojson(path: Path, layer: str, ground: Ground) -> Iterator[Write]:
    from rasterio.warp import transform

    if ground.crs is None:
        raise DataError(f"{layer}: GeoJSON needs longitude and latitude, but the raster has no CRS; choose gpkg.")
    separator = ""
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(f'{{"type": "FeatureCollection", "name": {json.dumps(layer)}, "features": [\n')

        def write(features: Features) -> None:
            nonlocal separator
            shapes = shapely.transform(
                features.shapes, lambda points: np.column_stack(transform(ground.crs, "EPSG:4326", *points.T.tolist()))
            )
            shapes = shapely.orient_polygons(shapes)
            columns = features.columns(ground)
            rows = zip(*(column.tolist() for column in columns.values()), strict=True)
            for geometry, row in zip(shapely.to_geojson(shapes), rows, strict=True):
                properties = json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False)
                stream.write(f'{separator}{{"type": "Feature", "properties": {properties}, "geometry": {geometry}}}')
                separator = ",\n"

        yield write
        stream.write("\n]}\n")


@contextmanager
def _geoparquet(path: Path, layer: str, ground: Ground) -> Iterator[Write]:
    import pyarrow
    import pyarrow.parquet

    geometry = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None if ground.crs is None else ground.crs.to_dict(projjson=True),
    }
    description = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}

    def table(features: Features) -> pyarrow.Table:
        columns = {**features.columns(ground), "geometry": shapely.to_wkb(features.shapes)}
        return pyarrow.table({name: pyarrow.array(values.tolist(), types[name]) for name, values in columns.items()})

    types = {name: pyarrow.string() for name in ("class", "measured")}
    types |= {ground.field: pyarrow.float64(), "confidence": pyarrow.float64()}
    types |= {"label": pyarrow.int32(), "geometry": pyarrow.binary()}
    schema = table(_nothing()).schema.with_metadata({"geo": json.dumps(description)})
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        yield lambda features: writer.write_table(table(features).replace_schema_metadata(schema.metadata))


def _nothing() -> Features:
    empty = np.empty(0, object)
    return Features(empty, empty, np.empty(0, np.int32), np.empty(0), np.empty(0))
