"""What zip and tar files hold, and a refusal of those that nobody should open."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ovrs.errors import DataError

MAX_MEMBER_BYTES = 4 << 30  # no image of these data sets comes near; what claims more is damaged or hostile
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVES = (".zip", ".tar", *_COMPRESSED_TARS)
_TAR_BLOCK = 512
# What zipfile, tarfile and the decompressors raise on damaged, encrypted or exotic files.
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError)


def is_archive(path: Path) -> bool:
    """Whether a file is an archive of a kind that is read, by its name."""
    return path.name.lower().endswith(ARCHIVES)


def without_ending(name: str) -> str:
    """Return the name of an archive without its ending."""
    ending = next(ending for ending in sorted(ARCHIVES, key=len, reverse=True) if name.lower().endswith(ending))
    return name[: -len(ending)]


@contextmanager
def intact(what: str) -> Iterator[None]:
    """Turn what the libraries raise on a damaged file in the block into an error that calls it ``what``."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{what} is gone; was the source moved while it was read?") from None
    except (*_BROKEN, OSError) as error:
        raise DataError(
            f"{what} cannot be read ({error or type(error).__name__}); it is probably damaged or incomplete. "
            "Fetch it again, or unpack it with another program and give the folder."
        ) from None


@lru_cache(maxsize=8)  # parsing the directory of a zip of 100,000 files takes a second
def opened_zip(path: Path) -> zipfile.ZipFile:
    """Return an open zip file; ``opened_zip.cache_clear()`` closes all."""
    return zipfile.ZipFile(path)


def zip_members(path: Path) -> Iterator[tuple[str, dict]]:
    """Yield name and further fields of each :class:`~ovrs.preparation.sources.Member` of a zip file."""
    archive = opened_zip(path)
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise DataError(f"{path}: its members overlap, so it is damaged or hostile; fetch it from its authors.")
    for info in infos:
        if info.flag_bits & 1:
            raise DataError(f"{path}: {info.filename} is encrypted; unpack it with its password and give the folder.")
        name = _safe_name(info.filename, path, is_link=stat.S_ISLNK(info.external_attr >> 16), size=info.file_size)
        yield name, {"size": info.file_size, "file": path, "entry": info.filename}


def tar_members(path: Path) -> Iterator[tuple[str, dict]]:
    """Yield name and further fields of each :class:`~ovrs.preparation.sources.Member` of an uncompressed tar file."""
    with tarfile.open(path, "r:") as archive:
        infos = regular_files(archive, path)
    end = max((info.offset_data + info.size for _, info in infos), default=0)
    if path.stat().st_size < end + _TAR_BLOCK:  # a tar ends with empty blocks
        raise DataError(f"{path} is cut off: it ends inside a member or right behind it; fetch it again.")
    for name, info in infos:
        yield name, {"size": info.size, "file": path, "entry": info.name, "offset": info.offset_data}


def regular_files(archive: tarfile.TarFile, path: Path) -> list[tuple[str, tarfile.TarInfo]]:
    """Return the files in a tar file with their checked names."""
    return [
        (_safe_name(info.name, path, is_link=not info.isfile() or info.issparse(), size=info.size), info)
        for info in archive.getmembers()
        if not info.isdir()
    ]


def _safe_name(name: str, archive: Path, *, is_link: bool, size: int) -> str:
    """Return the name with forward slashes, and refuse what no honest archive of images holds."""
    parts = name.replace("\\", "/").split("/")
    if is_link:
        raise DataError(
            f"{archive}: {name} is a link or something else than a plain file; unpack it yourself and give the folder."
        )
    if not parts[0] or ".." in parts or re.match(r"[A-Za-z]:", parts[0]) or "\0" in name:
        raise DataError(
            f"{archive}: the member {name!r} points out of its folder; do not trust this archive, "
            "fetch it from its authors."
        )
    if size > MAX_MEMBER_BYTES:
        raise DataError(
            f"{archive}: {name} claims {size} bytes (at most {MAX_MEMBER_BYTES} are read); it is damaged or hostile."
        )
    return "/".join(part for part in parts if part not in ("", "."))
