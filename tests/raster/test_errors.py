from __future__ import annotations

import errno
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from models import ColourModel, draw_truth, read, write_raster, write_scene
from rasterio.rio.main import main_group

from ovrs.errors import ConfigError, DataError
from ovrs.raster import LocalExecutor, RasterOptions, map_rasters, mosaic


@pytest.fixture
def run(tmp_path):
    def run(paths, **options):
        executor = LocalExecutor(ColourModel(), readers=2)
        try:
            return map_rasters(paths, tmp_path / "maps", executor, RasterOptions(**options))
        finally:
            executor.close()

    return run


@pytest.fixture
def good(tmp_path):
    return write_scene(tmp_path / "good.tif", draw_truth(40, 40))


def error_of(outcomes):
    (failed,) = [outcome for outcome in outcomes if outcome["status"] == "failed"]
    assert "\n" not in failed["error"]
    return failed["error"]


def truncated(path):
    picture = np.random.default_rng(0).integers(0, 256, (3, 200, 200), dtype=np.uint8)
    write_raster(path, picture)
    os.truncate(path, path.stat().st_size // 2)


def huge(path):
    kind = {"driver": "GTiff", "width": 10**6, "height": 10**6, "count": 3, "dtype": "uint8", "tiled": True}
    with rasterio.open(path, "w", **kind, sparse_ok=True, bigtiff=True, blockxsize=16384, blockysize=16384):
        pass


BAD = {
    "missing.tif": (lambda path: None, "does not exist"),
    "folder.tif": (lambda path: path.mkdir(), "is not a file"),
    "nowhere.tif": (lambda path: path.symlink_to("gone.tif"), "is a link to nothing"),
    "loop.tif": (lambda path: path.symlink_to(path), "cannot be read: Too many levels"),
    "empty.tif": (lambda path: path.write_bytes(b""), "damaged or of no known kind"),
    "words.tif": (lambda path: path.write_text("no raster"), "damaged or of no known kind"),
    "truncated.tif": (truncated, "damaged or of no known kind"),
    "huge.tif": (huge, "1e[+]12 pixels, more than the limit"),
    "complex.tif": (lambda path: write_raster(path, np.ones((1, 9, 9), np.complex64)), "complex64; choose others"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_raster_is_told_and_the_others_are_mapped(tmp_path, run, good, name):
    make, message = BAD[name]
    make(tmp_path / name)
    outcomes = run([tmp_path / name, good])
    assert [outcome["status"] for outcome in outcomes] == ["failed", "done"]
    assert name in error_of(outcomes)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(error_of(outcomes))
    report = json.loads((tmp_path / "maps/report.json").read_text(encoding="utf-8"))
    assert [raster["status"] for raster in report["rasters"]] == ["failed", "done"]
    assert not (tmp_path / f"maps/{name[:-4]}_labels.tif").exists()


@pytest.mark.parametrize(
    "path", ["https://example.org/a.tif", "/vsicurl/http://example.org/a.tif", "/vsizip/a.zip/a.tif"]
)
def test_remote_paths_are_refused_without_a_look(run, good, path):
    assert "allow such paths with --allow-remote" in error_of(run([path, good]))


@pytest.mark.parametrize("allow", [False, True])
def test_local_file_does_not_lead_elsewhere_unless_allowed(tmp_path, run, allow):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_HEAD

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "remote.vrt").write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>/vsicurl/http://127.0.0.1:{server.server_port}/a.tif</SourceFilename>"
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert "damaged or of no known kind" in error_of(run([tmp_path / "remote.vrt"], allow_remote=allow))
    server.shutdown()
    assert bool(asked) == allow


def unknown_code(path):
    write_scene(path, draw_truth(9, 9))
    content = path.read_bytes()
    path.write_bytes(content.replace((25832).to_bytes(2, "little"), (9999).to_bytes(2, "little")))


def beside(path):
    write_scene(path, draw_truth(9, 9), crs=None)
    Path(f"{path}.aux.xml").write_text("<PAMDataset><SRS>EPSG:9999</SRS></PAMDataset>")


def virtual(path):
    write_scene(path.with_suffix(".inner.tif"), draw_truth(9, 9), crs=None)
    path.write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>PROJCS["broken</SRS><VRTRasterBand dataType="Byte" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="1">{path.stem}.inner.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )


@pytest.mark.parametrize(
    ("make", "name"), [(unknown_code, "code.tif"), (beside, "beside.tif"), (virtual, "virtual.vrt")]
)
def test_coordinate_system_that_cannot_be_read_is_refused_and_the_others_are_mapped(tmp_path, run, good, make, name):
    make(tmp_path / name)
    outcomes = run([tmp_path / name, good], vector="gpkg")
    assert [outcome["status"] for outcome in outcomes] == ["failed", "done"]
    assert f"{name} names a coordinate reference system that cannot be read" in error_of(outcomes)
    assert not (tmp_path / f"maps/{name.split('.')[0]}_labels.tif").exists()


def test_remedy_for_a_coordinate_system_that_cannot_be_read_helps(tmp_path, run):
    path = tmp_path / "scene.tif"
    unknown_code(path)
    main_group.main(["edit-info", "--crs", "EPSG:25832", str(path)], standalone_mode=False)
    (outcome,) = run([path], overwrite=True)
    assert (outcome["status"], outcome["area_kind"]) == ("done", "ellipsoid")


@pytest.mark.parametrize("crs", [None, 'LOCAL_CS["building site",UNIT["metre",1]]'], ids=["none", "a site's own"])
def test_raster_without_a_place_on_the_earth_is_mapped_in_pixels(tmp_path, run, crs):
    (outcome,) = run([write_scene(tmp_path / "local.tif", draw_truth(9, 9), crs=crs)], vector="gpkg")
    assert outcome["status"] == "done"
    assert outcome["notes"] == ["without a coordinate reference system that is known; areas are in pixels"]
    assert outcome["area_kind"] == "pixels"


def test_link_to_a_raster_is_followed(tmp_path, run, good):
    (tmp_path / "link.tif").symlink_to(good)
    (outcome,) = run([tmp_path / "link.tif"])
    assert outcome["status"] == "done"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": (1, 2, 7)}, "has 3 bands, but --bands asks for band 7"),
        ({"aoi": (0, 0, 1, 1)}, "lies outside of"),
        ({"aoi": "no such.geojson"}, "does not exist"),
        ({"gsd": 1e-4}, "enlarges them more than 64 times"),
    ],
)
def test_options_that_do_not_fit_a_raster_are_told(run, good, options, message):
    assert message in error_of(run([good], **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": (1, 2)}, "one or three numbers"),
        ({"value_range": (5, 5)}, "LOW below HIGH"),
        ({"value_range": (5,)}, "LOW HIGH"),
        ({"overlap": 1.0}, "from 0 to 0.9"),
        ({"gsd": -1.0}, "gsd must be 0 or more"),
        ({"aoi": (1.0, 0.0, 0.0, 1.0)}, "LEFT BOTTOM RIGHT TOP"),
        ({"vector": "shp"}, "vector must be one of"),
    ],
)
def test_options_without_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RasterOptions(**options)


def test_ground_size_of_a_raster_without_place_is_unknown(tmp_path, run):
    path = write_scene(tmp_path / "a.tif", draw_truth(9, 9), crs=None, transform=None)
    assert "how large its pixels are on the ground" in error_of(run([path], gsd=0.5))


def test_no_raster_at_all_is_refused(run):
    with pytest.raises(DataError, match="no raster to map"):
        run([])


def test_rasters_of_one_name_are_refused_and_the_others_mapped(tmp_path, run, good):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_scene(tmp_path / folder / "x.tif", draw_truth(9, 9))
    outcomes = run([tmp_path / "a/x.tif", good, tmp_path / "b/x.tif"])
    assert [outcome["status"] for outcome in outcomes] == ["failed", "done", "failed"]
    assert "2 rasters are called x" in outcomes[0]["error"]


def test_no_input_is_overwritten_by_a_map(tmp_path, run):
    (tmp_path / "maps").mkdir()
    paths = [write_scene(tmp_path / f"maps/{name}.tif", draw_truth(9, 9)) for name in ("a", "a_labels")]
    before = paths[1].read_bytes()
    outcomes = run(paths)
    assert "would overwrite" in error_of(outcomes)
    assert outcomes[0]["status"] == "failed"
    assert paths[1].read_bytes() == before


def test_folder_that_cannot_be_written_to_is_told(tmp_path, good):
    (tmp_path / "file").write_text("")
    executor = LocalExecutor(ColourModel())
    with pytest.raises(DataError, match=r"cannot be written to: .*--out"):
        map_rasters([good], tmp_path / "file" / "maps", executor)


def test_full_disk_leaves_what_is_done_and_the_run_goes_on(tmp_path, run, monkeypatch):
    path = write_scene(tmp_path / "scene.tif", draw_truth(150, 50))
    written = []
    real = mosaic.replacing

    def full(target):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        written.append(target)
        return real(target)

    monkeypatch.setattr(mosaic, "replacing", full)
    assert "No space left on device" in error_of(run([path]))
    assert len(list(tmp_path.glob("maps/scene_parts/labels_*.tif"))) == 3
    monkeypatch.undo()
    (outcome,) = run([path], resume=True)
    assert outcome["status"] == "done"
    np.testing.assert_array_equal(read(tmp_path / "maps/scene_labels.tif"), draw_truth(150, 50))


@pytest.mark.parametrize(
    "name",
    [
        *("good_labels.tif", "good_labels.qml", "good_areas.csv", "good_overlay.png", "good_polygons.gpkg"),
        *("good_confidence.tif", "good_manifest.json", "good_parts/photo.jpg"),
    ],
)
def test_file_that_no_run_made_is_not_replaced_unless_asked(tmp_path, run, good, name):
    own = tmp_path / "maps" / name
    own.parent.mkdir(parents=True)
    own.write_text('{"mine": 1}')
    other = write_scene(tmp_path / "other.tif", draw_truth(9, 9))
    outcomes = run([good, other], overlay=True, vector="gpkg")
    assert [outcome["status"] for outcome in outcomes] == ["failed", "done"]
    assert name.split("/")[0] in error_of(outcomes)
    assert "--overwrite" in error_of(outcomes)
    assert own.read_text() == '{"mine": 1}'
    assert [path.name for path in tmp_path.glob("maps/good*")] == [name.split("/")[0]]
    (outcome,) = run([good], overlay=True, vector="gpkg", overwrite=True)
    assert outcome["status"] == "done"
    assert not own.exists() or b"mine" not in own.read_bytes()


def test_report_that_no_run_made_is_not_replaced(tmp_path, run, good):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/report.json").write_text("my own notes")
    with pytest.raises(DataError, match=r"no earlier run made .*report\.json"):
        run([good])
    assert (tmp_path / "maps/report.json").read_text() == "my own notes"


def test_files_of_earlier_runs_are_replaced_and_others_beside_them_are_not(tmp_path, run, good):
    run([good], vector="gpkg")
    (outcome,) = run([good])
    assert outcome["status"] == "done"
    (outcome,) = run([good], vector="gpkg")  # those of the run before the last one, too
    assert outcome["status"] == "done"
    (tmp_path / "maps/good_overlay.png").write_text("mine")
    assert "good_overlay.png" in error_of(run([good], overlay=True))
    assert (tmp_path / "maps/good_overlay.png").read_text() == "mine"


def test_picture_of_a_map_does_not_replace_an_input(tmp_path, run):
    (tmp_path / "maps").mkdir()
    truth = draw_truth(9, 9)
    paths = [write_scene(tmp_path / "maps/a.tif", truth), tmp_path / "maps/a_overlay.png"]
    write_scene(paths[1], truth, driver="PNG", crs=None, transform=None)
    assert "would overwrite" in run(paths, overlay=True, overwrite=True)[0]["error"]
