"""The same service as tools for agents, over the Model Context Protocol."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from mcp.server.fastmcp import FastMCP, Image
from mcp.server.fastmcp.exceptions import ToolError
from starlette.concurrency import run_in_threadpool

from ovrs.errors import DataError
from ovrs.serve.rest import Question, answer, png
from ovrs.serve.service import Service, reply

PATH = "/mcp"

_INSTRUCTIONS = """Maps aerial and satellite images into any classes that you name.

Upload an image once (upload_image, or POST its bytes to /v1/maps?name=... of this server, which suits large files),
then ask about it as often as you like with other classes: later answers are quick. Results are files of this server:
GET /v1/maps/ID/files/NAME."""


def build_tools(service: Service, host: str) -> FastMCP:
    """Return the MCP server.

    Args:
        service: answers.
        host: the address that the server listens on.
    """
    largest = service.limits.bytes * 4 // 3 + (1 << 16)  # base64, and what is around it
    server = FastMCP(
        "ovrs",
        _INSTRUCTIONS,
        host=host,
        streamable_http_path=PATH,
        max_request_body_size=largest,
        log_level="WARNING",
        stateless_http=True,  # an image has its id; nothing else is remembered between calls
        json_response=True,
    )

    async def told(function: Any, *arguments: Any) -> Any:
        try:
            return await run_in_threadpool(function, *arguments)
        except Exception as error:
            raise ToolError(reply(error)[1]) from None

    @server.tool()
    async def upload_image(name: str, content_base64: str, bands: list[int] | None = None) -> dict[str, Any]:
        """Bring an image (GeoTIFF, JPEG 2000, PNG, JPEG) to the server; the answer has the id for the other tools.

        bands: numbers from 1 of those that are red, green and blue, if the file does not say so itself.
        """
        return await told(_upload, service, name, content_base64, bands or [])

    @server.tool()
    async def map_image(
        id: str, classes: list[str], threshold: float | None = None, colours: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Segment an uploaded image into classes; the answer has pixels, share and area of each.

        classes: nouns, one string per class; "building|house|roof" gives synonyms. Name what else is there, too:
        every pixel gets the best of them. A single class is segmented against everything else.
        threshold: pixels whose best probability is lower become "other".
        colours: {class name: "#rrggbb"}.
        """
        return await told(answer, service, id, Question(classes=classes, threshold=threshold, colours=colours or {}))

    @server.tool()
    async def pixel_scores(id: str, x: int, y: int) -> dict[str, Any]:
        """Return class and probabilities at a pixel: column x and row y, from 0 at the upper left."""
        return await told(lambda: service.session(id).pixel(x, y))

    @server.tool()
    async def view_map(id: str, opacity: float = 0.5) -> Image:
        """Return a picture of the image with its map over it, at most 1280 pixels wide or high."""
        return Image(data=await told(png, service, id, opacity), format="png")

    @server.tool()
    async def forget_image(id: str) -> str:
        """Remove an image and its maps from the server."""
        await told(service.forget, id)
        return "removed"

    return server


def _upload(service: Service, name: str, content: str, bands: list[int]) -> dict[str, Any]:
    service.limits.check_bytes(len(content) * 3 // 4 - 2)
    try:
        decoded = base64.b64decode(content, validate=True)
    except binascii.Error:
        raise DataError("content_base64 is no base64; encode the file's bytes.") from None
    path = service.new_upload()
    path.write_bytes(decoded)
    return service.open(path, name, tuple(bands)).summary()
