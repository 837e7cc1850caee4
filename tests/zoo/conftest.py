"""A server of one file, and a cache folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Behaviour, serving

from ovrs.zoo import download


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    """A local server whose behaviour a test sets; ``url`` is its address. Nobody waits before trying again."""
    monkeypatch.setattr(download, "_PAUSE_S", 0)
    with serving() as behaviour:
        yield behaviour


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, in a folder with a space."""
    folder = tmp_path / "my weights"
    monkeypatch.setenv("OVRS_WEIGHTS", str(folder))
    return folder
