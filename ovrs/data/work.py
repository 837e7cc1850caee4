"""Long work over many files: how many processes may share it, and a bar that shows how far it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

Item = TypeVar("Item")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def progress(items: Iterable[Item], title: str, total: int, unit: str) -> Iterator[Item]:
    """Yield the items under a progress bar; it stands on a line of its own when messages or errors are written.

    Whoever works on the items does so in ``items`` (``progress(map(work, files), ...)``): then the bar is closed before
    an error leaves.
    """
    loggers = [logging.getLogger(name) for name in ("", "ovrs", "detectron2")]
    with logging_redirect_tqdm(loggers=loggers), tqdm(items, desc=title, total=total, unit=unit) as bar:
        yield from bar
