from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from models import COLOURS, NAMES, UTM, ColourModel, draw_truth, write_raster, write_scene

from ovrs.raster import LocalExecutor, RasterOptions, areas, map_rasters
from ovrs.raster.ground import Ground

pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")
from rasterio.features import shapes  # noqa: E402

from ovrs.raster import vectors  # noqa: E402


@pytest.fixture
def wavy():
    y, x = np.mgrid[:260, :180]
    return np.clip((np.sin(x / 17 + y / 41) + np.cos(y / 23 - x / 30)) * 1.2 + 2, 0, 4).astype(np.uint8)


def traced(tmp_path, labels, confidence=None, simplify=0.0):
    """Trace a map; return class, pixels, mean confidence and outline of every polygon."""
    confidence = np.full(labels.shape, 254, np.uint8) if confidence is None else confidence
    paths = [
        write_raster(tmp_path / f"{name}.tif", values[None], nodata=255)
        for name, values in (("labels", labels), ("confidence", confidence))
    ]
    with rasterio.open(paths[0]) as classes, rasterio.open(paths[1]) as sure:
        polygons = [polygon for some in vectors.trace(classes, sure, simplify) for polygon in some]
    return [(p.label, p.pixels, p.confidence / p.pixels, p.whole()) for p in polygons]


@pytest.mark.parametrize("band_pixels", [1, 1 << 22])  # bands of 64 rows, or a single one
@pytest.mark.parametrize("patch", [1, 3, 40])
def test_polygons_are_those_of_the_whole_map(tmp_path, monkeypatch, band_pixels, patch):
    monkeypatch.setattr(areas, "BAND_PIXELS", band_pixels)
    labels = draw_truth(200, 90, patch=patch)
    labels[20:180, 30:40] = 1
    labels[60:70, :20] = 255
    confidence = np.random.default_rng(0).integers(0, 255, labels.shape, dtype=np.uint8)
    expected = sorted(
        (int(value), shapely.normalize(shapely.geometry.shape(outline)).wkt)
        for outline, value in shapes(labels, labels != 255, connectivity=4)
    )
    found = traced(tmp_path, labels, confidence)
    assert sorted((label, shapely.normalize(outline).wkt) for label, _, _, outline in found) == expected
    for label, pixels, mean, outline in found[:: max(len(found) // 20, 1)]:
        inside = rasterio.features.geometry_mask([outline], labels.shape, Affine.identity(), invert=True)
        assert inside.sum() == pixels == outline.area
        assert (labels[inside] == label).all()
        np.testing.assert_allclose(mean, confidence[inside].mean() / 254)


@pytest.mark.parametrize("band_pixels", [1, 1 << 22])
def test_simplified_neighbours_keep_their_common_borders(tmp_path, monkeypatch, wavy, band_pixels):
    monkeypatch.setattr(areas, "BAND_PIXELS", band_pixels)
    outlines = np.array([outline for *_, outline in traced(tmp_path, wavy)])
    simple = np.array([outline for *_, outline in traced(tmp_path, wavy, simplify=2)])
    assert shapely.get_num_coordinates(simple).sum() < shapely.get_num_coordinates(outlines).sum() / 3
    assert shapely.is_valid(simple).all()
    assert shapely.area(simple).sum() == shapely.area(shapely.union_all(simple)) == wavy.size


def make_map(tmp_path, truth, vector, crs="EPSG:25832", transform=UTM, **options):
    path = write_scene(tmp_path / "a map.tif", truth, crs=crs, transform=transform)
    executor = LocalExecutor(ColourModel())
    (outcome,) = map_rasters([path], tmp_path / "out", executor, RasterOptions(vector=vector, **options))
    executor.close()
    assert outcome["status"] == "done", outcome
    return tmp_path / f"out/a map_polygons.{vector}", outcome


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:25832", UTM),
        ("EPSG:25832", UTM * Affine.rotation(20)),
        ("EPSG:4326", Affine(1e-5, 0, 6.9, 0, -1e-5, 50.9)),
        ("EPSG:3857", Affine(1, 0, 768000, 0, -1, 6600000)),
    ],
)
def test_polygons_areas_and_table_agree_with_the_ellipsoid(tmp_path, wavy, crs, transform):
    path, outcome = make_map(tmp_path, wavy, "gpkg", crs, transform)
    meta, _, wkb, columns = pyogrio.raw.read(path)
    found = dict(zip(meta["fields"], columns, strict=True))
    assert rasterio.CRS.from_user_input(meta["crs"]) == rasterio.CRS.from_user_input(crs)
    outlines = shapely.from_wkb(wkb)
    assert set(found["measured"]) == {"ellipsoid"}
    table = list(csv.DictReader((tmp_path / "out/a map_areas.csv").read_text(encoding="utf-8").splitlines()))
    for row, reported in zip(table, outcome["classes"], strict=True):
        total = found["area_m2"][found["class"] == row["class"]].sum()
        np.testing.assert_allclose(total, float(row["area_m2"]), rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(float(row["area_m2"]), reported["area"], atol=1e-3)
    height, width = wavy.shape
    frame = shapely.Polygon([transform * corner for corner in ((0, 0), (width, 0), (width, height), (0, height))])
    assert shapely.union_all(outlines).symmetric_difference(frame).area < 1e-9 * frame.area
    expected = flat_area(frame, crs)
    np.testing.assert_allclose(found["area_m2"].sum(), expected, rtol=2e-4)


def flat_area(polygon, crs):
    """Area of a polygon of some hundred metres: flat, with the ellipsoid's radii of curvature at its middle."""
    from rasterio.warp import transform as reproject

    x, y = polygon.exterior.coords.xy
    longitude, latitude = (np.array(v) for v in reproject(crs, "EPSG:4326", list(x), list(y)))
    middle = np.radians(latitude.mean())
    a, e2 = 6378137.0, 0.0066943799901413165
    w = np.sqrt(1 - e2 * np.sin(middle) ** 2)
    east = np.radians(longitude - longitude.mean()) * a / w * np.cos(middle)
    north = np.radians(latitude - latitude.mean()) * a * (1 - e2) / w**3
    return shapely.Polygon(np.column_stack([east, north])).area


def test_planar_areas_are_those_of_the_crs(tmp_path, wavy):
    path, outcome = make_map(tmp_path, wavy, "gpkg", planar=True)
    meta, _, wkb, columns = pyogrio.raw.read(path)
    found = dict(zip(meta["fields"], columns, strict=True))
    assert set(found["measured"]) == {"projected"}
    np.testing.assert_allclose(found["area_m2"], shapely.area(shapely.from_wkb(wkb)), rtol=1e-9)
    np.testing.assert_allclose(sum(area["area"] for area in outcome["classes"]), wavy.size / 4)


def test_small_polygons_become_part_of_their_neighbours(tmp_path, wavy):
    wavy[100, 100] = (wavy[100, 100] + 1) % 5
    path, _ = make_map(tmp_path, wavy, "gpkg", min_area=3.0, planar=True)
    meta, _, wkb, columns = pyogrio.raw.read(path)
    found = dict(zip(meta["fields"], columns, strict=True))["area_m2"]
    assert found.min() >= 3
    np.testing.assert_allclose(found.sum(), wavy.size / 4)
    outlines = shapely.from_wkb(wkb)
    np.testing.assert_allclose(shapely.union_all(outlines).area, wavy.size / 4)


def test_small_polygons_without_a_neighbour_are_left_out(tmp_path):
    truth = draw_truth(40, 40, patch=20)
    picture = write_scene(tmp_path / "islands.tif", truth)
    with rasterio.open(picture, "r+") as file:
        file.nodata = 0
        pixels = file.read()
        pixels[:, 8:13, 8:13] = 0
        pixels[:, 10, 10] = COLOURS[(truth[10, 10] + 1) % 5]
        file.write(pixels)
    executor = LocalExecutor(ColourModel())
    options = RasterOptions(vector="gpkg", min_area=3.0, planar=True)
    map_rasters([picture], tmp_path / "out", executor, options)
    executor.close()
    meta, _, _, columns = pyogrio.raw.read(tmp_path / "out/islands_polygons.gpkg")
    found = dict(zip(meta["fields"], columns, strict=True))["area_m2"]
    assert found.min() >= 3
    np.testing.assert_allclose(found.sum(), (1600 - 25) / 4)


def test_geojson_is_in_longitude_and_latitude(tmp_path, wavy):
    path, _ = make_map(tmp_path, wavy, "geojson")
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    first = content["features"][0]
    assert first["properties"]["class"] in NAMES
    longitude, latitude = first["geometry"]["coordinates"][0][0]
    assert 6.7 < longitude < 6.9
    assert 50.9 < latitude < 51
    outlines = [shapely.geometry.shape(feature["geometry"]) for feature in content["features"]]
    assert all(outline.exterior.is_ccw for outline in outlines)


def test_geoparquet_says_its_geometry_and_crs(tmp_path, wavy):
    parquet = pytest.importorskip("pyarrow.parquet")
    path, _ = make_map(tmp_path, wavy, "parquet")
    table = parquet.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["crs"]["id"]["code"] == 25832
    outlines = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
    assert shapely.area(outlines).sum() == wavy.size / 4
    assert set(table["class"].to_pylist()) <= set(NAMES)


def test_raster_without_place_has_areas_in_pixels_and_no_geojson(tmp_path, wavy):
    path, outcome = make_map(tmp_path, wavy, "gpkg", None, None)
    meta, _, _, columns = pyogrio.raw.read(path)
    assert dict(zip(meta["fields"], columns, strict=True))["area_px"].sum() == wavy.size
    assert outcome["area_kind"] == "pixels"
    executor = LocalExecutor(ColourModel())
    (outcome,) = map_rasters([tmp_path / "a map.tif"], tmp_path / "b", executor, RasterOptions(vector="geojson"))
    assert "needs longitude and latitude" in outcome["error"]


@pytest.mark.parametrize("degrees", [0.0, 45.0, 80.0])
def test_areas_of_pixels_add_up_to_the_zone_of_the_ellipsoid(degrees):
    # One degree by one degree; the area between two parallels has a closed form.
    size = 300
    ground = Ground(Affine(1 / size, 0, 10, 0, -1 / size, degrees + 1), rasterio.CRS.from_epsg(4326), size, size)
    total = sum(
        area * (rows.stop - rows.start) * (columns.stop - columns.start)
        for rows, columns, area in ground.pixel_areas(0, size, size)
    )
    a, e = 6378137.0, np.sqrt(0.0066943799901413165)

    def zone(latitude):
        s = np.sin(np.radians(latitude))
        return a**2 * (1 - e**2) / 2 * (s / (1 - e**2 * s**2) + np.arctanh(e * s) / e)

    np.testing.assert_allclose(total, np.radians(1) * (zone(degrees + 1) - zone(degrees)), rtol=1e-9)
