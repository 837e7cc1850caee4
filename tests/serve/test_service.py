"""What a server takes, and what it keeps."""

from __future__ import annotations

import struct
import threading
import time

import numpy as np
import pytest
import rasterio
from serve.conftest import WORDS, upload

from ovrs.errors import DataError, UserError
from ovrs.serve.limits import Busy, Gone, TooLarge
from ovrs.serve.service import reply

VRT = """<VRTDataset rasterXSize="140" rasterYSize="100"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


def refused(service, path, kind=UserError, name="") -> str:
    """Return the line that an upload is refused with; nothing of it stays."""
    before = set(service.folder.rglob("*"))
    with pytest.raises(kind) as caught:
        upload(service, path, name)
    assert set(service.folder.rglob("*")) == before
    assert str(service.folder) not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def huge_tiff(path, width: int, height: int):
    """A TIFF of a few bytes whose header speaks of a large image, all in one block."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))
    return path


# ---------------------------------------------------------------------- uploads


def test_file_is_refused_by_its_size(make_service, scene):
    assert "the file is larger than 0.01 MiB" in refused(make_service(megabytes=0.01), scene, TooLarge)


def test_image_is_refused_by_its_header_before_it_is_decoded(service, make_service, scene, tmp_path):
    line = refused(make_service(megapixels=0.01), scene, TooLarge)
    assert line.startswith("town.tif has 0.014 megapixels, more than 0.01;")
    assert "1e+06 megapixels" in refused(service, huge_tiff(tmp_path / "huge.tif", 10**6, 10**6), TooLarge)


def test_image_of_too_many_bands_is_refused(make_service, tmp_path):
    profile = {"driver": "GTiff", "height": 100, "width": 100, "count": 200, "dtype": "uint8"}
    with rasterio.open(tmp_path / "many.tif", "w", crs="EPSG:25832", **profile):
        pass
    assert "many.tif has 200 bands, too many" in refused(make_service(megapixels=0.02), tmp_path / "many.tif", TooLarge)


@pytest.mark.parametrize("name", ["scene.tif", "scene.vrt"])
def test_file_that_leads_to_other_files_is_refused_whatever_its_name(service, scene, tmp_path, name):
    (tmp_path / "link").write_text(VRT.format(scene), encoding="utf-8")
    line = refused(service, tmp_path / "link", DataError, name)
    assert line == f"{name} is no GeoTIFF, JPEG 2000, PNG or JPEG file; convert it to one of these."


@pytest.mark.parametrize("content", [b"", b"II*\0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"/etc/passwd"])
def test_file_that_is_no_image_is_refused(service, tmp_path, content):
    (tmp_path / "bad").write_bytes(content)
    assert "bad" in refused(service, tmp_path / "bad", DataError, "bad.tif")


def test_image_that_ends_early_fails_in_one_line(service, scene, tmp_path):
    data = scene.read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) - 20000])
    with pytest.raises(DataError, match=r"^cut\.tif cannot be read"):
        upload(service, tmp_path / "cut.tif").ask(WORDS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/pass wd.tif", "pass_wd.tif"),
        ("C:\\maps\\köln.TIFF", "köln.tif"),
        ("...", "image.tif"),
        ("<b>&\n.tif", "b.tif"),
        ("x" * 300, "x" * 60 + ".tif"),
    ],
)
def test_name_of_an_upload_is_only_a_name(service, scene, name, expected):
    session = upload(service, scene, name)
    assert session.path.name == expected
    assert session.path.parent.parent == service.folder


# ---------------------------------------------------------------------- sessions


def test_least_recently_used_session_goes_first(make_service, scene):
    service = make_service(sessions=2)
    first, second = upload(service, scene), upload(service, scene)
    first.summary()
    third = upload(service, scene)
    assert service.session(first.key) is first
    assert service.session(third.key) is third
    with pytest.raises(Gone):
        service.session(second.key)
    assert not second.path.parent.exists()


def test_session_that_nobody_uses_is_forgotten(make_service, scene):
    service = make_service(idle=0)
    session = upload(service, scene)
    with pytest.raises(Gone):
        service.session(session.key)
    assert not session.path.parent.exists()


def test_keys_cannot_be_guessed(service, scene):
    keys = {upload(service, scene).key for _ in range(3)}
    assert len(keys) == 3
    assert min(map(len, keys)) >= 22


def test_end_of_the_service_leaves_nothing(service, scene):
    upload(service, scene).ask(WORDS)
    service.close()
    assert not service.folder.exists()


def test_sessions_do_not_see_each_other(service, scene, truth):
    one, other = upload(service, scene), upload(service, scene)
    one.ask(WORDS)
    other.ask(["sand", "lake"])
    one.recolour({"water": "#ff0000"})
    assert [entry["name"] for entry in one.summary()["classes"]] == WORDS
    assert [entry["name"] for entry in other.summary()["classes"]] == ["sand", "lake"]
    assert other.summary()["classes"][1]["colour"] == "#0072b2"


# ---------------------------------------------------------------------- turns


def test_one_works_others_wait_and_more_are_refused(make_service):
    service = make_service(waiting=1)
    working, done, order = threading.Event(), threading.Event(), []

    def work(name: str) -> None:
        with service.turn():
            order.append(name)
            working.set()
            done.wait()

    threads = [threading.Thread(target=work, args=("first",)), threading.Thread(target=work, args=("second",))]
    threads[0].start()
    working.wait()
    threads[1].start()
    while service._places._value:  # until the second has its place
        time.sleep(0.01)
    with pytest.raises(Busy, match="1 requests are waiting"), service.turn():
        pass
    assert order == ["first"]
    done.set()
    for thread in threads:
        thread.join()
    assert order == ["first", "second"]
    with service.turn():
        pass


def test_question_that_is_refused_by_the_queue_leaves_the_answer(make_service, scene):
    service = make_service(waiting=0)
    session = upload(service, scene)
    session.ask(WORDS)
    with service.turn(), pytest.raises(Busy):
        session.ask(["lake", "sand"])
    assert [entry["name"] for entry in session.summary()["classes"]] == WORDS
    assert np.asarray(session.view(1.0)).any()


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DataError("scene.tif is broken."), 422, "scene.tif is broken."),
        (TooLarge("too large."), 413, "too large."),
        (RuntimeError("secret"), 500, "the server made a mistake; its log says more."),
        (OSError(28, "No space left on device", "/secret/path"), 507, "the server cannot use its disk (No space left"),
    ],
)
def test_errors_say_what_their_reader_can_use_and_no_more(error, status, line):
    code, said = reply(error)
    assert code == status
    assert said.startswith(line)
    assert "secret" not in said
