"""The one folder where published weights lie, and the sums of what lies there.

Everything works offline: a file that somebody puts into the folder counts like a fetched one. A file whose
SHA-256 the catalogue does not know gets a note of the first one seen, ``FILE.sha256`` in the format of
``sha256sum``; from then on another sum is refused.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ovrs.errors import WeightsError
from ovrs.files import replacing
from ovrs.zoo.catalogue import WeightsEntry
from ovrs.zoo.state_dict import sha256_of_file

FOLDER_VARIABLE = "OVRS_WEIGHTS"

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return ``$OVRS_WEIGHTS``, else ``ovrs`` in the folder of PyTorch's hub (``~/.cache/torch/hub``)."""
    if configured := os.environ.get(FOLDER_VARIABLE):
        return Path(configured).expanduser()
    import torch

    return Path(torch.hub.get_dir(), "ovrs")


def cached_path(entry: WeightsEntry) -> Path:
    """Return where the file of an entry lies, or would lie."""
    return cache_folder() / entry.file


def is_present(entry: WeightsEntry) -> bool:
    """Whether the file of an entry lies in the cache folder; nothing is checked."""
    return cached_path(entry).is_file()


def known_sum(entry: WeightsEntry) -> str:
    """Return the SHA-256 that the file must have: the catalogue's, else the one noted at first use, else ""."""
    note = _note(cached_path(entry))
    return entry.sha256 or (note.read_text(encoding="utf-8").split(maxsplit=1)[0] if note.is_file() else "")


def verify(path: Path, entry: WeightsEntry) -> str:
    """Check a file against the sum that it must have; note the sum if there is none yet.

    Args:
        path: the file; its sum is noted beside :func:`cached_path`.
        entry: what it should be.

    Returns:
        Its SHA-256.

    Raises:
        WeightsError: another sum.
    """
    found, expected = sha256_of_file(path), known_sum(entry)
    if not expected:
        target = cached_path(entry)
        with replacing(_note(target)) as temporary:
            temporary.write_text(f"{found}  {target.name}\n", encoding="utf-8")
        logger.info("%s: nobody publishes its SHA-256; %s is noted beside it and checked from now on.", target, found)
    elif found != expected:
        if entry.sha256:
            raise WeightsError(
                f"{path} is damaged: its SHA-256 is {found}, not {expected}. Delete it and fetch {entry.name} again."
            )
        raise WeightsError(
            f"{path} is not the file that was first used as {entry.name}: its SHA-256 is {found}, the noted one is "
            f"{expected}. If the new file is right, delete {_note(cached_path(entry))}."
        )
    return found


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
