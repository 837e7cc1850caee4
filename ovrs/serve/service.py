"""All images of a server, and whose turn it is."""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from ovrs.errors import UserError, is_expected
from ovrs.predictor import Predictor
from ovrs.serve.limits import Busy, Gone, Limits, kind_of
from ovrs.serve.session import Session

log = logging.getLogger(__name__)

_LONGEST_NAME = 60


class Service:
    """Keeps sessions, and lets one request at a time use the model.

    Everything on disk lies in one temporary folder, which :meth:`close` removes.

    Args:
        predictor: the model.
        limits: what is taken.
    """

    def __init__(self, predictor: Predictor, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._predictor = predictor
        self._temporary = tempfile.TemporaryDirectory(prefix="ovrs-serve-")
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()  # of the sessions
        self._model = threading.Lock()
        self._places = threading.BoundedSemaphore(self.limits.waiting + 1)

    @property
    def folder(self) -> Path:
        """The folder of all temporary files."""
        return Path(self._temporary.name)

    def new_upload(self) -> Path:
        """Return a path for a file that is coming in, alone in a folder of its own."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir()
        return folder / "upload"

    def discard(self, upload: Path) -> None:
        """Remove an upload that came to nothing."""
        shutil.rmtree(upload.parent, ignore_errors=True)

    def open(self, upload: Path, name: str, bands: tuple[int, ...] = ()) -> Session:
        """Start a session.

        Args:
            upload: a file as of :meth:`new_upload`; the session owns it, and it is gone if it cannot be used.
            name: what its sender calls it; only for messages and the names of downloads.
            bands: see :class:`ovrs.raster.RasterOptions`.

        Raises:
            UserError: it is no image that can be read, or too large.
        """
        from rasterio.errors import NotGeoreferencedWarning

        try:
            self.limits.check_bytes(upload.stat().st_size)
            path = upload.rename(upload.with_name(f"{_stem(name)}.{kind_of(upload, name)}"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self.limits.check_header(path)
                session = Session(secrets.token_urlsafe(16), path, self._predictor, self.limits, self.turn, bands)
        except UserError as error:
            self.discard(upload)
            raise type(error)(str(error).replace(f"{upload.parent}/", "")) from None
        except BaseException:
            self.discard(upload)
            raise
        with self._lock:
            self._sessions[session.key] = session
        self.tidy()
        return session

    def session(self, key: str) -> Session:
        """Return a session by its key.

        Raises:
            Gone: there is none.
        """
        with self._lock:
            if key in self._sessions:
                return self._sessions[key]
        raise Gone("this map was forgotten, or never there; upload the image again.")

    def forget(self, key: str | None) -> None:
        """End a session, if it is there, and remove its files."""
        with self._lock:
            session = self._sessions.pop(key, None) if key else None
        if session:
            session.close()

    def tidy(self) -> None:
        """End sessions that nobody used for long, and the least recently used of too many."""
        with self._lock:
            by_use = sorted(self._sessions.values(), key=lambda session: session.used)
        too_many = len(by_use) - self.limits.sessions
        for place, session in enumerate(by_use):
            if place < too_many or time.monotonic() - session.used > self.limits.idle:
                self.forget(session.key)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until the model is free.

        Raises:
            Busy: too many wait already.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(f"{self.limits.waiting} requests are waiting for the model; try again in a minute.")
        try:
            with self._model:
                yield
        finally:
            self._places.release()

    def close(self) -> None:
        """End all sessions and remove all files."""
        for key in list(self._sessions):
            self.forget(key)
        self._temporary.cleanup()


def reply(error: Exception) -> tuple[int, str]:
    """Return the HTTP status and the line for an error; what is no fault of its reader is logged and not shown."""
    if isinstance(error, UserError):
        return getattr(error, "status", 422), str(error)
    log.error("a request failed", exc_info=error)
    if not is_expected(error):
        return 500, "the server made a mistake; its log says more."
    if isinstance(error, OSError):
        return 507, f"the server cannot use its disk ({error.strerror})."
    return 507, "the server's GPU has too little memory for this; use fewer classes or a smaller image."


def _stem(name: str) -> str:
    """Return a file's name without its folder, its ending, and whatever does not belong into names."""
    last = PureWindowsPath(PurePosixPath(name).name).stem
    return re.sub(r"[^\w.-]+", "_", last).strip("._")[:_LONGEST_NAME] or "image"
