"""A local server of one file, which breaks off and misbehaves as a test wants."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 2000
SUM = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """How the server of :func:`serving` answers.

    Attributes:
        content: the file.
        breaks_after: bytes after which an answer ends; one number per answer, the last one stays; None: never.
        etag: validator; "" for none.
        ranges: whether parts are served.
        if_range: whether a part is only served if ``If-Range`` names the validator.
        status, kind: of the answer.
        asked: the ``Range`` header of every request, "" without one.
        paths: of every request.
        url: of the server.
    """

    content: bytes = CONTENT
    breaks_after: list[int | None] = field(default_factory=lambda: [None])
    etag: str = '"first"'
    ranges: bool = True
    if_range: bool = True
    status: int = 200
    kind: str = "application/octet-stream"
    asked: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving() -> Iterator[Behaviour]:
    """Run a server for a block."""
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            behaviour.asked.append(asked)
            behaviour.paths.append(self.path)
            limit = behaviour.breaks_after[min(len(behaviour.asked), len(behaviour.breaks_after)) - 1]
            start, status, total = 0, behaviour.status, len(behaviour.content)
            fresh = not behaviour.if_range or self.headers.get("If-Range") in (None, behaviour.etag)
            if asked and behaviour.ranges and fresh:
                start, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
                if start >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(status)
            self.send_header("Content-Type", behaviour.kind)
            self.send_header("Content-Length", str(total - start))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if behaviour.etag:
                self.send_header("ETag", behaviour.etag)
            self.end_headers()
            self.wfile.write(behaviour.content[start:][:limit])
            if limit is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    behaviour.url = f"http://127.0.0.1:{running.server_port}"
    yield behaviour
    running.shutdown()
    running.server_close()
    thread.join()
