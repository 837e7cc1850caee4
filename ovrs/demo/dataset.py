"""The demo data set on disk: images, labels, two data cards, a manifest."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from tqdm import tqdm

from ovrs.demo.canvas import CLASS_COLOURS, CLASSES, RENAMED_CLASSES
from ovrs.demo.scene import BASE_SIZE, MIN_SIZE, render_scene
from ovrs.files import replacing

logger = logging.getLogger(__name__)

GENERATOR_VERSION = 4  # raise it whenever equal arguments would give other files
MANIFEST = "scenes.json"
SPLITS = ("train", "val")
CARDS = {
    "scenes": ("Synthetic aerial scenes", CLASSES),
    "scenes_renamed": ("Synthetic aerial scenes, classes renamed", RENAMED_CLASSES),
}
GSD_M = 0.5  # ground sampling distance that the sizes of cars and houses are drawn for


def scene_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """The generator of one scene; it depends on nothing but these three."""
    return np.random.default_rng([seed, SPLITS.index(split), index])


def write_scenes(folder: str | Path, *, train: int, val: int, size: int = BASE_SIZE, seed: int = 0) -> Path:
    """Write a demo data set, unless the folder holds exactly this one already.

    The folder gets ``images/{train,val}/NNNN.png`` (RGB), ``labels/{train,val}/NNNN.png`` (8-bit
    palette, class ids), the data cards ``scenes.yaml`` and ``scenes_renamed.yaml`` (the same files
    under other class strings) and the manifest ``scenes.json``. Scene n depends on the seed, its
    split and n only, so a larger set starts with the smaller one.

    Args:
        folder: created if needed; scenes that an earlier call left there are replaced.
        train: number of training scenes, at least 1.
        val: number of validation scenes, at least 1.
        size: side of a scene in pixels.
        seed: not negative.

    Returns:
        The folder.

    Raises:
        ValueError: an argument out of range.
        FileExistsError: the folder has images or labels that this function did not write.
    """
    for name, value, least in (("train", train, 1), ("val", val, 1), ("size", size, MIN_SIZE), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}.")
    folder = Path(folder)
    arguments = {"generator": GENERATOR_VERSION, "train": train, "val": val, "size": size, "seed": seed}
    counts = {"train": train, "val": val}
    if _read_manifest(folder) == {**arguments, "complete": True} and _all_there(folder, counts):
        logger.info("%s: the scenes are there already", folder)
        return folder

    _make_room(folder, counts)
    _write_manifest(folder, arguments, complete=False)
    jobs = [(split, index) for split in SPLITS for index in range(counts[split])]
    for split, index in tqdm(jobs, desc="drawing scenes", unit="scene"):
        image, labels = render_scene(scene_rng(seed, split, index), size)
        picture, ids = Image.fromarray(image), Image.fromarray(labels)
        ids.putpalette(CLASS_COLOURS.ravel().tolist())
        for kind, content in (("images", picture), ("labels", ids)):
            with replacing(_file(folder, kind, split, index)) as temporary:
                content.save(temporary, compress_level=3)
    for name, (title, classes) in CARDS.items():
        _write_card(folder, name, title, classes)
    _write_manifest(folder, arguments, complete=True)
    return folder


def _file(folder: Path, kind: str, split: str, index: int) -> Path:
    return folder / kind / split / f"{index:04d}.png"


def _scene_files(folder: Path) -> Iterator[Path]:
    """Existing files with the names that this module gives."""
    for kind in ("images", "labels"):
        for split in SPLITS:
            for path in (folder / kind / split).glob("*.png"):
                if re.fullmatch(r"\d{4,}", path.stem):
                    yield path


def _all_there(folder: Path, counts: dict[str, int]) -> bool:
    expected = {
        _file(folder, kind, split, n) for kind in ("images", "labels") for split in SPLITS for n in range(counts[split])
    }
    cards = [folder / f"{name}.yaml" for name in CARDS]
    return expected == set(_scene_files(folder)) and all(card.is_file() for card in cards)


def _make_room(folder: Path, counts: dict[str, int]) -> None:
    """Make the folders, and remove scenes that the new set does not overwrite."""
    if _read_manifest(folder) is None and (found := next(_scene_files(folder), None)):
        raise FileExistsError(
            f"{found} was not written by this function ({folder / MANIFEST} is missing). Choose an empty folder, or "
            f"remove {folder / 'images'} and {folder / 'labels'}."
        )
    for kind in ("images", "labels"):
        for split in SPLITS:
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
    for path in list(_scene_files(folder)):
        if int(path.stem) >= counts[path.parent.name]:
            path.unlink()


def _read_manifest(folder: Path) -> dict | None:
    path = folder / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ValueError(f"{path} is not valid JSON. Remove the folder {folder}, and write the scenes again.") from None


def _write_manifest(folder: Path, arguments: dict[str, int], complete: bool) -> None:
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps({**arguments, "complete": complete}, indent=2) + "\n", encoding="utf-8")


def _write_card(folder: Path, name: str, title: str, classes: Sequence[str]) -> None:
    card = {
        "name": name,
        "title": title,
        "classes": list(classes),
        "palette": CLASS_COLOURS.tolist(),
        "splits": {split: {"images": f"images/{split}", "labels": f"labels/{split}"} for split in SPLITS},
        "gsd_m": GSD_M,
        "licence": "CC0-1.0: generated, no photographs",
    }
    with replacing(folder / f"{name}.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(card, sort_keys=False, default_flow_style=None), encoding="utf-8")
