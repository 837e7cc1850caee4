"""Downloads that go on where they broke off."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ovrs.errors import WeightsError

logger = logging.getLogger(__name__)

_ATTEMPTS_WITHOUT_PROGRESS = 3
_TIMEOUT_S = 60
_PAUSE_S = 1.0  # before the second attempt that brings nothing; doubled for the third
_PIECE = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Broken(Exception):
    """The connection ended before the file did."""


def download(url: str, target: Path, *, size: int = 0, sum_is_known: bool = False) -> None:
    """Fetch ``url`` into ``target``, going on with what an earlier call left in ``target.part``.

    A connection that breaks off is opened again as long as every attempt brings something. The server's
    validator (strong ETag or date) is kept beside the part, so that halves of two versions are never joined; from a
    server without one a part is continued only if the caller checks the sum afterwards.

    Args:
        url: http or https.
        target: the finished file; its folder exists.
        size: bytes, if known, for the progress bar.
        sum_is_known: whether the caller can tell a file joined from two versions.

    Raises:
        WeightsError: the server refuses, sends a web page, or the connection breaks off for good; what has come
            is kept, and the message says so.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise WeightsError(f"{url!r} is no http or https address.")
    part = target.with_name(f"{target.name}.part")
    failures, before = 0, _size(part)
    while True:
        try:
            _attempt(url, part, size, sum_is_known)
            break
        except (_Broken, urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    break  # all of it had come already
                part.unlink()
            elif isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise WeightsError(f"{url}: the server answers {error.code} {error.reason}.") from error
            reached = _size(part)
            failures = 0 if reached > before else failures + 1
            before = reached
            if failures >= _ATTEMPTS_WITHOUT_PROGRESS:
                kept = f" {reached:,} bytes are kept in {part}; the same command goes on from there." if reached else ""
                reason = getattr(error, "reason", error)
                raise WeightsError(f"{url}: the download broke off ({reason}).{kept}") from error
            time.sleep(_PAUSE_S * failures)
            logger.info("%s: the connection broke off after %s bytes; trying again.", target.name, f"{reached:,}")
    os.replace(part, target)
    _tag_file(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path, size: int, sum_is_known: bool) -> None:
    """Ask once for what is missing, and append it."""
    have, tag = _size(part), _noted_tag(part, url)
    headers = {"User-Agent": "ovrs", "Accept-Encoding": "identity"}
    if have and (tag or sum_is_known):
        headers["Range"] = f"bytes={have}-"
        if tag:
            headers["If-Range"] = tag
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S) as answer:
        if answer.headers.get_content_type() == "text/html":
            raise WeightsError(
                f"{url}: the server sent a web page instead of the file. Open the address in a browser to see why."
            )
        start, total = _extent(answer, have)
        if start and tag and _tag_of(answer.headers) not in ("", tag):  # a server that does not know If-Range
            part.unlink()
            raise _Broken("the file has changed at its source")
        _check_space(part.parent, total - start)
        _tag_file(part).write_text(json.dumps({"url": url, "tag": _tag_of(answer.headers)}), encoding="utf-8")
        with (
            open(part, "ab" if start else "wb") as stream,
            tqdm(
                desc=part.stem,
                initial=start,
                total=total or size or None,
                unit="B",
                unit_scale=True,
                mininterval=0.2 if sys.stderr.isatty() else 60,  # a log file gets a line a minute
            ) as bar,
        ):
            while piece := answer.read(_PIECE):
                stream.write(piece)
                bar.update(len(piece))
    if total and _size(part) != total:
        raise _Broken(f"{_size(part):,} of {total:,} bytes came")


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int]:
    """Return at which byte an answer starts and how long the whole file is (0 if it does not say)."""
    if answer.status != http.client.PARTIAL_CONTENT:
        return 0, int(answer.headers.get("Content-Length") or 0)
    match = _RANGE.match(answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        raise _Broken(f"asked for bytes from {have}, got {answer.headers.get('Content-Range')!r}")
    return have, 0 if match[2] == "*" else int(match[2])


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WeightsError(
            f"{folder}: {needed / 1e9:.2f} GB are still to come and {free / 1e9:.2f} GB are free; make room, or set "
            "$OVRS_WEIGHTS to another folder."
        )


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _tag_of(headers: http.client.HTTPMessage) -> str:
    """Return the validator that ``If-Range`` takes: a strong ETag, else the date, else ""."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _noted_tag(part: Path, url: str) -> str:
    """Return the validator that came with the part; "" if it came from another address, or without one."""
    if not _tag_file(part).is_file():
        return ""
    noted = json.loads(_tag_file(part).read_text(encoding="utf-8"))
    return noted["tag"] if noted["url"] == url else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
