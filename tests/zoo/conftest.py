"""A server of one file, and a catalogue with entries that point to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
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


@pytest.fixture
def add_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Return a function that adds an entry to the catalogue."""

    def add(name: str = "tiny", kind: str = "towers", **values: object) -> str:
        path = tmp_path / f"catalogue of {name}.yaml"
        entry = {"title": "A tiny file", "licence": "MIT", "file": f"{name}.pth", **values}
        path.write_text(yaml.safe_dump({kind: {name: entry}}), encoding="utf-8")
        monkeypatch.setenv("OVRS_ZOO", str(path))
        return name

    return add
