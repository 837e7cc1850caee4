"""The command ``ovrs``, called in this process as from a command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from ovrs.cli import main


@pytest.fixture
def ovrs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a command line and return what it prints; it raises ``SystemExit`` where the command fails."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["/somewhere/ovrs", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
        return capsys.readouterr().out

    return run
