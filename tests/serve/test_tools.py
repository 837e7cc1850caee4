"""The tools for agents, through a client in this process."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest
from serve.conftest import WORDS

pytest.importorskip("mcp", reason="pip install 'ovrs[serve]'")

from mcp.shared.memory import create_connected_server_and_client_session

from ovrs.serve.tools import build_tools


def call(service, *calls):
    """Call tools one after the other; arguments may be functions of the results so far. Return all results."""

    async def talk():
        results = []
        async with create_connected_server_and_client_session(build_tools(service, "127.0.0.1")._mcp_server) as client:
            for name, arguments in calls:
                result = await client.call_tool(name, arguments(results) if callable(arguments) else arguments)
                (content,) = result.content
                text = getattr(content, "text", content)
                results.append(text if result.isError or content.type != "text" or text[0] != "{" else json.loads(text))
        return results

    return asyncio.run(talk())


@pytest.fixture
def upload(scene):
    return "upload_image", {"name": "town.tif", "content_base64": base64.b64encode(scene.read_bytes()).decode()}


def test_agent_maps_an_image_asks_about_a_pixel_and_looks(service, upload, truth):
    uploaded, summary, pixel, picture, removed = call(
        service,
        upload,
        ("map_image", lambda found: {"id": found[0]["id"], "classes": WORDS, "colours": {"water": "#ff0000"}}),
        ("pixel_scores", lambda found: {"id": found[0]["id"], "x": 75, "y": 20}),
        ("view_map", lambda found: {"id": found[0]["id"], "opacity": 1.0}),
        ("forget_image", lambda found: {"id": found[0]["id"]}),
    )
    assert (uploaded["file"], uploaded["crs"]) == ("town.tif", "EPSG:25832")
    assert [entry["pixels"] for entry in summary["classes"]] == np.bincount(truth.ravel()).tolist()
    assert summary["classes"][0]["colour"] == "#ff0000"
    assert pixel["class"] == "road"
    assert picture.mimeType == "image/png"
    assert base64.b64decode(picture.data).startswith(b"\x89PNG")
    assert removed == "removed"
    assert list(service.folder.iterdir()) == []


def test_errors_are_lines_that_an_agent_can_use(make_service, upload):
    service = make_service(megabytes=0.1)
    lines = call(
        service,
        upload,
        ("map_image", lambda found: {"id": found[0]["id"], "classes": ["road, water"]}),
        ("map_image", {"id": "nothing", "classes": WORDS}),
        ("upload_image", {"name": "x.tif", "content_base64": "no base64"}),
        ("upload_image", {"name": "x.tif", "content_base64": "A" * 200000}),
    )[1:]
    for line, part in zip(lines, ("contains a comma", "forgotten", "no base64", "larger than 0.1 MiB"), strict=True):
        assert part in line


def test_tools_offer_no_way_to_paths_or_checkpoints(service):
    async def listed():
        return await build_tools(service, "127.0.0.1").list_tools()

    tools = {tool.name: set(tool.inputSchema["properties"]) for tool in asyncio.run(listed())}
    assert tools == {
        "upload_image": {"name", "content_base64", "bands"},
        "map_image": {"id", "classes", "threshold", "colours"},
        "pixel_scores": {"id", "x", "y"},
        "view_map": {"id", "opacity"},
        "forget_image": {"id"},
    }
