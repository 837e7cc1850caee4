"""The server in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ovrs.serve import Limits, Service
from ovrs.serve.application import application


@contextmanager
def running(predictor, limits: Limits | None = None, mcp: bool = True) -> Iterator[str]:
    """Start a server on a free port of this machine, and give its address."""
    app = application(Service(predictor, limits), "127.0.0.1", mcp)
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
