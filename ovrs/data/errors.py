"""The error of the data room, and the hint that most of its messages end with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """Data or a data card that cannot be used; the message names the file, the value and the remedy."""


def nearest(word: str, known: Iterable[str], count: int = 1) -> str:
    """Return the ``count`` known words most like ``word``, best first and comma-separated."""
    return ", ".join(difflib.get_close_matches(word, sorted(known), n=count, cutoff=0.0))


def shortened(items: Iterable[object], limit: int = 5) -> str:
    """Return the first items comma-separated, and how many more there are."""
    items = list(items)
    listed = ", ".join(str(item) for item in items[:limit])
    return listed if len(items) <= limit else f"{listed} and {len(items) - limit} more"
