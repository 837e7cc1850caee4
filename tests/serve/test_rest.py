"""The REST interface, without a network."""

from __future__ import annotations

import io

import numpy as np
import pytest
import rasterio
from PIL import Image
from serve.conftest import WORDS

from ovrs.serve.session import FILES

pytest.importorskip("fastapi", reason="pip install 'ovrs[serve]'")

from fastapi.testclient import TestClient

from ovrs.serve.rest import build_app


@pytest.fixture
def client(service):
    with TestClient(build_app(service), base_url="http://127.0.0.1:7860") as client:
        yield client


@pytest.fixture
def address(client, scene) -> str:
    """Where the uploaded scene is."""
    reply = client.post("/v1/maps", params={"name": "town.tif"}, content=scene.read_bytes())
    assert reply.status_code == 201, reply.text
    return f"/v1/maps/{reply.json()['id']}"


def refused(reply, status: int) -> str:
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["error"]
    assert "\n" not in reply.json()["error"]
    return reply.json()["error"]


def test_image_and_words_become_a_map_and_files(client, address, truth):
    summary = client.put(f"{address}/classes", json={"classes": WORDS}).json()
    assert [entry["pixels"] for entry in summary["classes"]] == np.bincount(truth.ravel()).tolist()
    assert summary == client.get(address).json()
    for ending in summary["files"]:
        file = client.get(f"{address}/files/{ending}")
        assert file.status_code == 200
        assert f'filename="town_{ending}"' in file.headers["content-disposition"]
    labels = client.get(f"{address}/files/labels.tif").content
    with rasterio.MemoryFile(labels) as memory, memory.open() as dataset:
        np.testing.assert_array_equal(dataset.read(1), truth)
    assert list(FILES) == summary["files"]


def test_words_colours_and_pixels_can_be_asked_again(client, address, predictor):
    client.put(f"{address}/classes", json={"classes": WORDS})
    seen = predictor.model.vlm.passes
    reply = client.put(f"{address}/classes", json={"classes": [*WORDS, "sand"], "colours": {"sand": "#123456"}})
    assert reply.json()["classes"][4] == {"name": "sand", "pixels": 0, "share": 0.0, "area": 0.0, "colour": "#123456"}
    reply = client.put(f"{address}/classes", json={"colours": {"water": "#ff0000"}})
    assert reply.json()["classes"][0]["colour"] == "#ff0000"
    assert reply.json()["question"] == [*WORDS, "sand"]
    assert predictor.model.vlm.passes == seen
    assert client.get(f"{address}/pixel", params={"x": 75, "y": 20}).json()["class"] == "road"


def test_view_is_a_picture(client, address):
    client.put(f"{address}/classes", json={"classes": WORDS})
    image, colours = (
        np.asarray(Image.open(io.BytesIO(client.get(f"{address}/view.png", params={"opacity": opacity}).content)))
        for opacity in (0, 1)
    )
    assert image.shape == colours.shape == (400, 560, 3)
    assert (colours == (0, 114, 178)).all(axis=-1).any()
    assert not (image == (0, 114, 178)).all(axis=-1).any()


def test_deleted_map_is_gone(client, address, service):
    assert client.delete(address).status_code == 204
    assert "upload the image again" in refused(client.get(address), 404)
    refused(client.delete(address), 404)
    assert list(service.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"classes": ["road", "road"]}, "classes share words"),
        ({"classes": "road"}, "classes: input should be a valid array."),
        ({"classes": WORDS, "weights": "/etc/passwd"}, "weights: extra inputs are not permitted."),
        ({"classes": WORDS, "threshold": 3}, "threshold must be from 0 to 1, got 3"),
        ({"colours": {"water": "blue"}}, "nothing was asked yet"),
        ("nonsense", "the body: input should be an object."),
    ],
)
def test_question_that_cannot_be_answered_is_refused_in_a_line(client, address, body, line):
    assert refused(client.put(f"{address}/classes", json=body), 422).startswith(line)


def test_unknown_maps_files_and_places_are_refused(client, address):
    refused(client.get("/v1/maps/nothing"), 404)
    refused(client.get(f"{address}/files/labels.tif"), 422)  # nothing was asked yet
    client.put(f"{address}/classes", json={"classes": WORDS})
    refused(client.get(f"{address}/files/town.tif"), 404)
    assert client.get(f"{address}/files/..%2Ftown.tif").status_code == 404
    assert "lies outside" in refused(client.get(f"{address}/pixel", params={"x": 999, "y": 0}), 422)
    assert refused(client.get(f"{address}/pixel", params={"x": "a", "y": 0}), 422).startswith("query.x: ")


def test_upload_ends_where_the_limit_is(make_service, scene):
    service = make_service(megabytes=0.02)
    read = 0

    def content():
        nonlocal read
        for _ in range(100):
            read += 1
            yield bytes(1 << 10)

    with TestClient(build_app(service), base_url="http://127.0.0.1") as client:
        assert "the file is larger than 0.02 MiB" in refused(client.post("/v1/maps", content=content()), 413)
        assert list(service.folder.iterdir()) == []


def test_question_ends_where_the_limit_is(client, address):
    reply = client.put(f"{address}/classes", content=b'{"classes": ["' + b"x" * (1 << 20) + b'"]}')
    assert "longer than 1 MiB" in refused(reply, 413)


def test_no_image_no_map(client, service):
    line = refused(client.post("/v1/maps", params={"name": "notes.txt"}, content=b"hello"), 422)
    assert line.startswith("notes.txt is no GeoTIFF")
    refused(client.post("/v1/maps", params={"bands": [1, 2, 3, 4]}, content=b"hello"), 422)
    assert list(service.folder.iterdir()) == []


def test_other_names_of_this_machine_are_refused_on_loopback_only(service, make_service):
    with TestClient(build_app(service), base_url="http://127.0.0.1") as client:
        assert client.get("/v1/limits", headers={"Host": "evil.example.org"}).status_code == 400
        assert client.get("/v1/limits").json()["megapixels"] == 25
    with TestClient(build_app(make_service(), "0.0.0.0"), base_url="http://127.0.0.1") as client:
        assert client.get("/v1/limits", headers={"Host": "maps.example.org"}).status_code == 200


def test_end_of_the_application_removes_all_files(service, scene):
    with TestClient(build_app(service), base_url="http://127.0.0.1") as client:
        client.post("/v1/maps", content=scene.read_bytes())
    assert not service.folder.exists()
