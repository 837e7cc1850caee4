"""Page, REST interface and tools in one application."""

from __future__ import annotations

from fastapi import FastAPI

from ovrs.serve.page import add_page
from ovrs.serve.rest import build_app
from ovrs.serve.service import Service


def application(service: Service, host: str, mcp: bool = False) -> FastAPI:
    """Return what a server runs.

    Args:
        service: answers; closed when the application ends.
        host: the address that the server listens on.
        mcp: whether agents get tools.
    """
    if not mcp:
        return add_page(build_app(service, host), service)
    from ovrs.serve.tools import build_tools

    tools = build_tools(service, host)
    routes = tools.streamable_http_app().routes
    app = build_app(service, host, tools.session_manager.run)
    app.router.routes.extend(routes)
    return add_page(app, service)
