"""From a name or a path to a local, checked file."""

from __future__ import annotations

import logging
import shutil
import urllib.parse
from pathlib import Path, PurePosixPath

from filelock import FileLock

from ovrs.errors import WeightsError, nearest
from ovrs.files import replacing
from ovrs.zoo.cache import FOLDER_VARIABLE, cache_folder, cached_path, verify
from ovrs.zoo.catalogue import WeightsEntry, entry_of, find, list_models
from ovrs.zoo.download import download

logger = logging.getLogger(__name__)


def fetch(name: str, source: str = "") -> Path:
    """Return the checked file of a catalogue name, getting it first if it is not in the cache folder.

    Args:
        name: of the catalogue.
        source: where to get it instead of its own address: the address of a mirror (of the file, or of a folder
            that holds it), a local folder or a local file.

    Raises:
        WeightsError: unknown name; nothing but a person can get the file (the message says how); a failed
            download (what came is kept); another SHA-256 or size than it must have.
    """
    entry = entry_of(name)
    path = cached_path(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # the processes of one training ask for the same file
        if not path.is_file():
            _get(entry, path, source)
        verify(path, entry)
    return path


def resolve(name_or_path: str | Path, key: str = "MODEL.WEIGHTS") -> Path:
    """Return the local file behind a catalogue name or a path; a name is fetched if need be.

    Args:
        name_or_path: a name of the catalogue, or a local file.
        key: of the configuration, for messages.

    Raises:
        WeightsError: neither a file nor a name, or what :func:`fetch` raises.
    """
    path = Path(name_or_path).expanduser()
    entry = find(str(name_or_path))
    if path.is_file():
        return path
    if entry is None:
        raise WeightsError(
            f"{key}: {str(name_or_path)!r} is neither a file nor a name of the catalogue; the nearest names are "
            f"{nearest(str(name_or_path), list_models(), 3)}. 'ovrs models' lists all."
        )
    try:
        return fetch(entry.name)
    except WeightsError as error:
        raise WeightsError(f"{key}: {error}") from error


def config_of(name: str) -> str:
    """Return the configuration that the weights of a released segmenter belong to, by name.

    Raises:
        WeightsError: unknown name, or weights of a tower.
    """
    entry = entry_of(name)
    if not entry.config:
        raise WeightsError(
            f"{name!r} is a tower, no whole model: name it in MODEL.VLM.WEIGHTS, MODEL.PRIOR.WEIGHTS or "
            f"MODEL.COMPANION.WEIGHTS. Whole models are {', '.join(list_models('segmenter'))}."
        )
    return entry.config


def _get(entry: WeightsEntry, path: Path, source: str) -> None:
    """Put the file of an entry into the cache folder, checked."""
    local = Path(source).expanduser()
    if source and urllib.parse.urlsplit(source).scheme not in ("http", "https"):
        found = _in_folder(entry, local) if local.is_dir() else local
        if not found.is_file():
            raise WeightsError(f"{source!r} is neither an address, nor a folder, nor a file.")
        verify(found, entry)
        with replacing(path) as temporary:
            shutil.copyfile(found, temporary)
        return
    address = _on_mirror(entry, source) if source else entry.address
    if not address:
        raise WeightsError(
            f"{entry.name!r} cannot be downloaded automatically: {entry.way_to_get(path)}. (The folder is "
            f"{cache_folder()}; ${FOLDER_VARIABLE} names another.)"
        )
    fetched = path.with_name(f"{path.name}.fetched")
    try:
        download(address, fetched, size=entry.size, sum_is_known=bool(entry.sha256))
        _check_size(fetched, entry)
        verify(fetched, entry)
        fetched.replace(path)
    except WeightsError as error:
        if not fetched.is_file():
            raise WeightsError(f"{entry.name}: {error} Or {entry.way_to_get(path)}.") from error
        raise
    finally:
        fetched.unlink(missing_ok=True)
    logger.info("%s: %s", entry.name, path)


def _in_folder(entry: WeightsEntry, folder: Path) -> Path:
    """Return the file of an entry in a local folder, under its own or its published name."""
    candidates = [folder / name for name in _names(entry)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise WeightsError(
        f"{folder} holds no file of {entry.name}: looked for {', '.join(str(path) for path in candidates)}."
    )


def _on_mirror(entry: WeightsEntry, source: str) -> str:
    """Return the address on a mirror: ``source`` itself if it names the file, else the file below it."""
    last = PurePosixPath(urllib.parse.urlsplit(source).path).name
    names = _names(entry)
    return source if last in names else f"{source.rstrip('/')}/{names[0]}"


def _names(entry: WeightsEntry) -> list[str]:
    """Return under which names a file of an entry may lie elsewhere, the likeliest first."""
    published = entry.published_as or entry.file
    return list(dict.fromkeys((PurePosixPath(published).name, entry.file, published)))


def _check_size(path: Path, entry: WeightsEntry) -> None:
    found = path.stat().st_size
    if entry.size and found != entry.size:
        raise WeightsError(f"{path} has {found:,} bytes, {entry.name} has {entry.size:,}; fetch it again.")
