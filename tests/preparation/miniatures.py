"""Miniatures of what the authors of data sets distribute: the real names, nesting, modes and colours."""

from __future__ import annotations

import dataclasses
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ovrs.data import DatasetCard, built_in_cards
from ovrs.preparation import find_card

Files = Mapping[str, bytes]


class Maker:
    """Writes image files and archives; given to tests as the fixture ``make``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def image(height: int, width: int, seed: int = 0) -> np.ndarray:
        """Return uint8 [height, width, 3]: no two pixels of an image, and of images of two seeds, are alike."""
        row, column = np.indices((height, width))
        return np.stack([row, column, row // 256 * 16 + column // 256 + 51 * seed], -1).astype(np.uint8)

    @staticmethod
    def classes(height: int, width: int, count: int, seed: int = 0, block: int = 25) -> np.ndarray:
        """Return uint8 [height, width]: blocks of 0..count-1, each of which occurs."""
        grid = np.random.default_rng(seed).integers(0, count, (-(-height // block), -(-width // block)), np.uint8)
        grid.flat[:count] = np.arange(count)
        return grid.repeat(block, 0).repeat(block, 1)[:height, :width]

    @staticmethod
    def painted(classes: np.ndarray, colours: Iterable[tuple[int, int, int]]) -> np.ndarray:
        """Return classes as colours."""
        return np.array(list(colours), np.uint8)[classes]

    @staticmethod
    def encoded(pixels: np.ndarray, kind: str, palette: Iterable[tuple[int, int, int]] = ()) -> bytes:
        """Return the bytes of a "PNG", "JPEG" or "TIFF" file; with a palette, of a palette file."""
        picture = Image.fromarray(pixels)
        if palette := list(palette):
            picture.putpalette(np.array(palette, np.uint8).tobytes())
        stream = io.BytesIO()
        picture.save(stream, kind)
        return stream.getvalue()

    def archive(self, name: str, files: Files) -> Path:
        """Write a zip or tar file of the kind that its ending says."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file, content in files.items():
                    archive.writestr(file, content)
            return path
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            for file, content in files.items():
                info = tarfile.TarInfo(file)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    def tree(self, name: str, files: Files) -> Path:
        """Write files into a folder."""
        for file, content in files.items():
            path = self.folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.folder / name


def card_of(name: str, **facts: object) -> DatasetCard:
    """Return a card of the package, with facts of its source changed for a miniature; None takes one away."""
    card = find_card(name, built_in_cards())
    source = {key: value for key, value in {**card.source, **facts}.items() if value is not None}
    return dataclasses.replace(card, source=source)


def written(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return {path: (inode, modification time, size)} of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
