"""The page's own parts, and what its server refuses."""

from __future__ import annotations

import json

import pytest
from serve.conftest import WORDS

pytest.importorskip("gradio", reason="pip install 'ovrs[serve]'")

import httpx
from serve.running import running

from ovrs.errors import ConfigError
from ovrs.serve import Limits
from ovrs.serve.page import as_hex, describe, links, read_bands, table


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # the page sets it


def test_legend_has_a_row_per_class_and_no_foreign_html(session, truth):
    session.ask([*WORDS[:3], "<script>alert(1)</script>"])
    shown = table(session.summary())
    assert shown.count("<tr>") == 5
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "background:#0072b2" in shown
    assert f"<td>{(truth == 0).mean():.1%}</td>" in shown


def test_downloads_are_files_of_the_rest_interface(session):
    session.ask(WORDS)
    assert f'href="v1/maps/{session.key}/files/polygons.gpkg" download' in links(session.summary())


def test_pixel_is_described_with_its_place(session):
    session.ask(WORDS)
    shown = describe(session.summary(), session.pixel(75, 20))
    assert "pixel 75, 20 at 346037.75, 5647989.75: road" in shown


@pytest.mark.parametrize(("text", "bands"), [("", ()), ("4,3,2", (4, 3, 2)), (" 1 ", (1,)), ("4 3, 2", (4, 3, 2))])
def test_bands_are_read_from_a_text(text, bands):
    assert read_bands(text) == bands


def test_bands_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigError, match="bands must be numbers such as 4,3,2, got 'red'"):
        read_bands("red")


@pytest.mark.parametrize("colour", ["#ff0080", "rgba(255, 0, 128.2, 1)", "rgb(255, 0, 128)"])
def test_colour_of_the_picker_is_read(colour):
    assert as_hex(colour) == "#ff0080"


def test_page_is_served_and_takes_neither_paths_nor_large_files(predictor, scene):
    with running(predictor, Limits(megabytes=0.1)) as url, httpx.Client(base_url=url, timeout=60) as client:
        page = client.get("/")
        assert page.status_code == 200
        config = client.get("/config").json()
        (opening,) = [each for each in config["dependencies"] if each["targets"][0][1] == "upload"]
        secret = scene.parent / "secret.tif"
        secret.write_bytes(scene.read_bytes())
        for path in (str(secret), "/etc/passwd", f"{url}/v1/limits"):
            file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.tif"}
            body = {"data": [file, "", None], "fn_index": opening["id"], "session_hash": "abc"}
            client.post("/gradio_api/queue/join", json=body).raise_for_status()
            with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "abc"}) as events:
                messages = [json.loads(line[5:]) for line in events.iter_lines() if line.startswith("data:")]
            (end,) = [message for message in messages if message["msg"] == "process_completed"]
            assert not end["success"], path
        assert secret.exists()
        large = client.post("/gradio_api/upload", files={"files": ("large.tif", bytes(200_000))})
        assert large.status_code == 413
        assert client.get(f"/gradio_api/file={secret}").status_code == 403
        assert client.get("/", headers={"Host": "evil.example.org"}).status_code == 400
