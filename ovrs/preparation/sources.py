"""What a data set's authors distribute, read in place: folders and archives as one list of members."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ovrs.errors import DataError, shortened
from ovrs.preparation.archives import (
    ARCHIVES,
    intact,
    is_archive,
    opened_zip,
    regular_files,
    tar_members,
    without_ending,
    zip_members,
)
from ovrs.preparation.space import require_space

Key = str | tuple[str, ...]

_IN_MEMORY = 64 << 20  # packed TIFFs up to this size are unpacked in memory; larger ones are entered through GDAL
SCRATCH_PREFIX = ".ovrs-unpacked-"

_CHUNK = 1 << 20
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Member:
    """A file of the source, wherever it lies. Small and picklable: it travels to worker processes.

    Attributes:
        name: path with forward slashes that patterns see. It starts with the name of the ``--source`` folder;
            an archive counts as a folder of its name without ending.
        size: bytes, uncompressed.
        file: the file itself, or the archive that holds it.
        entry: name inside the archive; None for a plain file.
        offset: where its bytes start in an uncompressed tar; None otherwise.
        origin: how messages call it; for files that were unpacked, the archive and the name in it.
    """

    name: str
    size: int
    file: Path
    entry: str | None = None
    offset: int | None = None
    origin: str = ""

    def __str__(self) -> str:
        if self.origin:
            return self.origin
        return str(self.file) if self.entry is None else f"{self.file}: {self.entry}"

    @property
    def is_packed(self) -> bool:
        """Whether it comes out of an archive."""
        return self.entry is not None or bool(self.origin)

    @property
    def archive(self) -> Path:
        """The archive that holds it; for members of compressed tars, the folder that they were unpacked into."""
        return self.file if self.entry is not None else self.file.parent

    @property
    def suffix(self) -> str:
        """Ending in lower case, dot included."""
        return os.path.splitext(self.name)[1].lower()

    @contextmanager
    def for_gdal(self) -> Iterator[str]:
        """Give a name under which GDAL reads the file within the block; packed files are unpacked into memory."""
        if self.entry is None:
            yield str(self.file)
        elif self.size <= _IN_MEMORY:
            from rasterio import MemoryFile

            with MemoryFile(self.read()) as memory:
                yield memory.name
        else:
            system = "vsizip" if self.offset is None else "vsitar"
            yield f"/{system}/{{{self.file}}}/{self.entry}"

    def read(self) -> bytes:
        """Return all bytes; those of zip members are checked against their CRC.

        Raises:
            DataError: damaged, shorter or longer than announced, encrypted, or packed by an unknown method.
        """
        with self.open() as stream, intact(str(self)):
            content = stream.read(self.size + 1)
        if len(content) != self.size:
            raise DataError(f"{self} has {len(content)} bytes instead of {self.size}; it is damaged, fetch it again.")
        return content

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open for reading; the stream seeks, and headers are read without the rest where the format allows."""
        with intact(str(self)):
            if self.offset is not None:
                with self.file.open("rb") as archive:
                    archive.seek(self.offset)
                    stream: BinaryIO = io.BytesIO(archive.read(self.size))
            elif self.entry is not None:
                stream = opened_zip(self.file).open(self.entry)  # type: ignore[assignment]
            else:
                stream = self.file.open("rb")
        with stream:
            yield stream


class Source:
    """A read-only view over everything that ``--source`` names. Use as a context manager.

    Zip and uncompressed tar files are read in place. Compressed tars cannot be read out of order, so they
    are unpacked into a hidden folder beside the output, which goes when the block ends.

    Args:
        paths: folders and archives; archives inside folders are looked into, those inside archives are not.
        scratch: folder beside which compressed tars are unpacked; it need not exist.

    Raises:
        DataError: a path that is missing, no archive, damaged or truncated; a member that would lie outside
            of its archive's folder (absolute, drive letter, ``..``, link) or claims an impossible size.
    """

    def __init__(self, paths: Sequence[str | Path], scratch: str | Path) -> None:
        if not paths:
            raise DataError("no source is given; name the downloaded folder or archive.")
        self._paths = [Path(path).expanduser().absolute() for path in paths]
        self._scratch = existing_parent(Path(scratch))
        self._cleanup = ExitStack()
        self.archives: list[Path] = []
        self.members: list[Member] = []
        self._beside: set[Path] = set()  # archives whose unpacked contents are there, too

    def __enter__(self) -> Source:
        with ExitStack() as undo:
            undo.push(self.__exit__)
            for path in self._paths:
                if path.is_dir():
                    self._scan_folder(path)
                elif path.is_file():
                    if not is_archive(path):
                        raise DataError(
                            f"source {path} is neither a folder nor an archive of a kind that is read "
                            f"({', '.join(ARCHIVES)}); unpack it and give the folder."
                        )
                    self._scan_archive(path, Path(without_ending(path.name)))
                else:
                    raise DataError(f"source {path} does not exist; give the downloaded folder or archive.")
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        opened_zip.cache_clear()  # closes the archives
        self._cleanup.close()

    def __str__(self) -> str:
        return ", ".join(map(str, self._paths))

    def find(self, pattern: str, example: str, *, optional: bool = False) -> dict[Key, Member]:
        """Return the members whose path ends with a pattern, by what the pattern's groups caught.

        Args:
            pattern: regular expression for the last parts of the path, whatever folders stand before them.
                Its groups make the key: a text for one group, a tuple for several.
            example: a path that the pattern finds, for messages.
            optional: finding nothing is no error.

        An archive may lie beside its unpacked contents, as in a usual download folder: then the unpacked file is taken.

        Raises:
            DataError: nothing found, or two members with one key.
        """
        expression = re.compile(f"(?:.*/)?(?:{pattern})")
        found: dict[Key, Member] = {}
        for member in self.members:
            if match := expression.fullmatch(member.name):
                groups = match.groups()
                key = groups[0] if len(groups) == 1 else groups
                if key in found:
                    member = self._unpacked_one(found[key], member, key)
                found[key] = member
        if not found and not optional:
            packed = [member.name for member in self.members if is_archive(Path(member.name))]
            hint = (
                f" It holds archives inside an archive ({shortened(packed)}): unpack the outer one." if packed else ""
            )
            raise DataError(
                f"{self} holds no file like {example!r} ({len(self.members)} files were looked at).{hint} "
                "Give the original download, with its file names as they were."
            )
        return dict(sorted(found.items()))

    def _unpacked_one(self, first: Member, second: Member, key: Key) -> Member:
        """Return the unpacked one of an archive's member and the file that was unpacked from it."""
        packed = [member for member in (first, second) if member.is_packed]
        plain = [member for member in (first, second) if not member.is_packed]
        if len(packed) == 1 and first.size == second.size and first.name.endswith(second.name.rpartition("/")[2]):
            archive = packed[0].archive
            if archive in self._beside or first.read() == second.read():  # the first of an archive vouches for the rest
                if archive not in self._beside:
                    self._beside.add(archive)
                    logger.info("%s lies beside its unpacked contents; those are read.", archive)
                return plain[0]
        raise DataError(f"{first} and {second} are the same thing twice ({key}); give --source only one of them.")

    def verify(self, md5: Mapping[str, str]) -> None:
        """Compare archives with known MD5 sums, given by file name; archives of other names are not looked at.

        Raises:
            DataError: a sum differs.
        """
        for path in self.archives:
            expected = md5.get(path.name)
            if expected is None:
                continue
            logger.info("checking the MD5 sum of %s", path)
            digest = hashlib.md5(usedforsecurity=False)
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
            if digest.hexdigest() != expected:
                raise DataError(
                    f"{path} has the MD5 sum {digest.hexdigest()}, but the authors' file has {expected}: it is damaged "
                    "or another version. Fetch it again; if you packed it yourself, unpack it and give the folder."
                )

    def _scan_folder(self, root: Path) -> None:
        seen = set()  # folders by identity: links are followed, but not in circles
        for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse_folder):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not _is_clutter(name))
            for name in sorted(files):
                path = Path(folder, name)
                inside = Path(root.name, path.relative_to(root))
                if _is_clutter(name):
                    continue
                if is_archive(path):
                    self._scan_archive(path, inside.with_name(without_ending(name)))
                else:
                    self.members.append(Member(inside.as_posix(), path.stat().st_size, path))

    def _scan_archive(self, path: Path, inside: Path) -> None:
        self.archives.append(path)
        with intact(str(path)):
            if path.name.lower().endswith(".zip"):
                members = zip_members(path)
            elif path.name.lower().endswith(".tar"):
                members = tar_members(path)
            else:
                members = self._unpack(path)
            for name, member in members:
                if not any(_is_clutter(part) for part in name.split("/")):
                    self.members.append(Member(f"{inside.as_posix()}/{name}", **member))

    def _unpack(self, path: Path) -> Iterator[tuple[str, dict]]:
        """Unpack a compressed tar; its members become plain files."""
        with tarfile.open(path) as archive:
            infos = regular_files(archive, path)
            require_space(self._scratch, sum(info.size for _, info in infos), f"unpacking {path}")
            folder = self._cleanup.enter_context(
                tempfile.TemporaryDirectory(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-", dir=self._scratch)
            )
            logger.info("unpacking %s for the time of this run", path)
            for number, (name, info) in enumerate(infos):
                # numbered: names of the archive never become paths
                target = Path(folder, f"{number}{os.path.splitext(name)[1]}")
                stream = archive.extractfile(info)
                assert stream is not None  # a regular file
                with stream, target.open("wb") as copy:
                    shutil.copyfileobj(stream, copy)
                yield name, {"size": info.size, "file": target, "origin": f"{path}: {info.name}"}


def paired(
    images: Mapping[Key, Member], labels: Mapping[Key, Member], *, spare_labels: bool = False
) -> Iterator[tuple[Key, Member, Member]]:
    """Yield (key, image, labels) in the order of the keys.

    Args:
        images: result of :meth:`Source.find`.
        labels: result of :meth:`Source.find`, with the same kind of key.
        spare_labels: labels without an image are left out instead of refused.

    Raises:
        DataError: a partner is missing; the message names the files that stand alone.
    """
    for some, others, has, lacks in ((images, labels, "images", "labels"), (labels, images, "labels", "image")):
        alone = [str(some[key]) for key in some if key not in others]
        if alone and not (spare_labels and some is labels):
            raise DataError(
                f"{len(alone)} {has} without {lacks}: {shortened(alone)}. Add the missing files to the source, "
                "or leave these out of it."
            )
    for key in sorted(images):
        yield key, images[key], labels[key]


def existing_parent(path: Path) -> Path:
    """Return the path itself if it is a folder, else the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _is_clutter(name: str) -> bool:
    """Whether a file or folder is something that systems leave in archives."""
    return name.startswith(".") or name == "__MACOSX"


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"{error.filename} may not be read ({error.strerror}); change its permissions.") from None
