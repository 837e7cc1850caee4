"""Writing files in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` at the end of the block.

    If the block fails, whatever ``path`` held before is still there, and nothing else is left.

    Args:
        path: the file to write; its folder is made if needed.

    Yields:
        A path in the same folder and with the same ending, to be written in the block.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "report.txt")
        >>> with replacing(file) as temporary:
        ...     _ = temporary.write_text("done")
        >>> file.read_text()
        'done'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
