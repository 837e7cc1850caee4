"""Room on the disk, asked for before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from ovrs.errors import DataError

_UNITS = ("bytes", "KB", "MB", "GB", "TB")


def readable_size(size: float) -> str:
    """Return a number of bytes as people write it: "1.5 GB"."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in _UNITS[:2] else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        folder: an existing folder on the disk in question.
        needed: bytes.
        purpose: what they are for, in the message.

    Raises:
        DataError: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{purpose} needs about {readable_size(needed)}, but the disk of {folder} has {readable_size(free)} left. "
            "Make room, or choose another place with --out."
        )
