"""The page in a browser: type, click, recolour, download.

It needs Chromium and Playwright: ``apt-get install chromium``, ``pip install playwright``, ``pytest -m heavy
tests/serve/test_browser.py``. With ``OVRS_SCREENSHOTS`` set to a folder, pictures of every step are left there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from serve.colours import draw_scene, write_scene
from serve.conftest import WORDS

pytest.importorskip("gradio", reason="pip install 'ovrs[serve]'")
pytest.importorskip("playwright", reason="pip install playwright")

from playwright.sync_api import Page, expect, sync_playwright
from serve.running import running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 600_000  # milliseconds until a browser that shows nothing new is given up
expect.set_options(timeout=PATIENCE)
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]


@pytest.fixture
def page(monkeypatch, tmp_path) -> Iterator[Page]:
    """A browser's page; it may ask nobody but this machine."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # the page sets it
    foreign, broken = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: foreign.append(request.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        yield page
        browser.close()
    assert [url for url in foreign if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))] == []
    assert broken == []


@pytest.fixture
def large_scene(tmp_path) -> tuple[Path, np.ndarray]:
    """A scene whose pixels are shown one to one, and its truth."""
    truth, words = draw_scene(480, 640)
    assert words == WORDS
    return write_scene(tmp_path / "our town.tif", truth, words), truth


def picture(page: Page, name: str) -> None:
    if folder := os.environ.get("OVRS_SCREENSHOTS"):
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def upload(page: Page, url: str, path: Path) -> None:
    page.goto(url)
    page.set_input_files("#file input[type=file]", path)
    expect(page.locator("#place")).to_contain_text("EPSG:25832")


def ask(page: Page, *words: str) -> None:
    page.fill("#words textarea", "\n".join(words))
    page.click("#ask")
    for word in words:
        expect(page.locator("#legend")).to_contain_text(word)


def download(page: Page, ending: str, folder: Path) -> Path:
    with page.expect_download() as started:
        page.click(f"#files a:text-is('{ending}')")
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def shown(page: Page, x: int, y: int) -> list[int] | None:
    """Return the colour of a pixel of the picture that the browser shows."""
    return page.evaluate(
        """async ([x, y]) => {
            const image = document.querySelector('#view img');
            try { await image.decode(); } catch { return null; }  // another picture is on its way
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            return Array.from(context.getImageData(x, y, 1, 1).data.slice(0, 3));
        }""",
        [x, y],
    )


def wait_for_colour(page: Page, x: int, y: int, colour: list[int]) -> None:
    for _ in range(PATIENCE // 100):
        if shown(page, x, y) == colour:
            return
        page.wait_for_timeout(100)
    assert shown(page, x, y) == colour


def test_words_become_a_map_that_can_be_changed_clicked_and_downloaded(page, predictor, large_scene, tmp_path):
    scene, truth = large_scene
    with running(predictor) as url:
        page.goto(url)
        page.click("#ask")
        expect(page.locator("#status [role=alert]")).to_have_text("there is no image yet: drop one first.")
        upload(page, url, scene)
        picture(page, "1 image")
        ask(page, *WORDS)
        expect(page.locator("#legend")).to_contain_text(f"{(truth == 0).mean():.1%}")
        picture(page, "2 map")
        seen = predictor.model.vlm.passes

        image = page.locator("#view img")
        box = image.bounding_box()
        image.click(position={"x": box["width"] * 0.25, "y": box["height"] * 0.6})  # the middle of the lake
        expect(page.locator("#place")).to_contain_text(": water")
        expect(page.locator("#scores")).to_contain_text("100%")
        picture(page, "3 pixel")

        page.locator("#opacity input[type=number]").fill("1")
        page.locator("#opacity input[type=number]").press("Enter")
        wait_for_colour(page, 160, 288, [0, 114, 178])
        ask(page, "lake", *WORDS[1:], "sand")  # renamed, and one more
        wait_for_colour(page, 160, 288, [0, 114, 178])
        page.click("#name input")
        page.click("[role=option]:has-text('lake')")
        page.click("#colour button")
        page.locator("#colour input[type=text]").fill("#ff00aa")
        page.locator("#colour input[type=text]").press("Enter")
        wait_for_colour(page, 160, 288, [255, 0, 170])
        picture(page, "4 renamed and recoloured")
        page.click("h2")  # the colour picker is open, and swallows a click elsewhere
        assert predictor.model.vlm.passes == seen  # only the head ran

        files = {ending: download(page, ending, tmp_path) for ending in ("labels.tif", "labels.qml", "overlay.png")}
        files["polygons.gpkg"] = download(page, "polygons.gpkg", tmp_path)
        page.fill("#words textarea", "road\nroad")
        page.click("#ask")
        expect(page.locator("#status [role=alert]")).to_contain_text("classes share words")
        picture(page, "5 error")

    assert {path.name for path in files.values()} == {f"our_town_{ending}" for ending in files}
    with rasterio.open(files["labels.tif"]) as dataset:
        np.testing.assert_array_equal(dataset.read(1), truth)
        assert dataset.colormap(1)[0] == (255, 0, 170, 255)
    assert 'color="#ff00aa" label="lake"' in files["labels.qml"].read_text(encoding="utf-8")
    assert files["polygons.gpkg"].read_bytes().startswith(b"SQLite format 3")


def test_downloaded_labels_are_those_of_the_command(page, trained, tmp_path):
    scene = write_scene(tmp_path / "our town.tif", *draw_scene())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ovrs.cli"]
    classes = ["building|house", "road", "open water"]
    subprocess.run(
        [*command, "predict", scene, "--model", trained, "--out", tmp_path / "maps", "--classes", *classes], check=True
    )
    server = subprocess.Popen([*command, "serve", "--model", trained, "--port", str(port)])
    try:
        while True:
            assert server.poll() is None, "the server did not start"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        upload(page, f"http://127.0.0.1:{port}", scene)
        ask(page, "road", "forest")
        page.fill("#words textarea", "\n".join(classes))
        page.click("#ask")
        expect(page.locator("#legend")).to_contain_text("open water")
        picture(page, "6 the command")
        labels, style = (download(page, ending, tmp_path) for ending in ("labels.tif", "labels.qml"))
    finally:
        server.terminate()
        server.wait()
    with rasterio.open(labels) as dataset, rasterio.open(tmp_path / "maps" / "our town_labels.tif") as expected:
        np.testing.assert_array_equal(dataset.read(1), expected.read(1))
        assert dataset.colormap(1) == expected.colormap(1)
        assert len(np.unique(dataset.read(1))) > 1
        assert (dataset.crs, dataset.transform) == (expected.crs, expected.transform)
    assert style.read_bytes() == (tmp_path / "maps" / "our town_labels.qml").read_bytes()
