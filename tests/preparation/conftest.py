"""Making, preparing and loading miniature data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from miniatures import Maker

from ovrs.data import DatasetCard, built_in_cards, read_pair, resolve_datasets
from ovrs.preparation import find_card, prepare


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """A maker of original files, in a folder with a space in its name."""
    return Maker(tmp_path / "the download")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where prepared sets go, with a space; not there yet."""
    return tmp_path / "my data"


@pytest.fixture
def load(out: Path) -> Callable[[str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return {stem: (image, labels)} of a prepared set, as training would read it."""

    def load(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        (registered,) = resolve_datasets([name], out)
        card = find_card(name, built_in_cards())
        return {
            record["stem"]: read_pair(record["file_name"], record["sem_seg_file_name"], card)
            for record in DatasetCatalog.get(registered)
        }

    return load


@pytest.fixture
def rural(make: Maker) -> Path:
    """A folder with LoveDA images 0..3 of 1024 x 1024: two for training, two for validation."""
    for number in range(4):
        split = "Train" if number < 2 else "Val"
        image = make.encoded(np.full((1024, 1024, 3), number, np.uint8), "PNG")
        ids = make.encoded(make.classes(1024, 1024, 8, number, block=64), "PNG")
        make.tree(f"LoveDA/{split}/Rural", {f"images_png/{number}.png": image, f"masks_png/{number}.png": ids})
    return make.folder / "LoveDA"


@pytest.fixture
def prepared(out: Path) -> Callable:
    """Prepare a card in this process."""

    def run(card: DatasetCard, *sources: Path, **options: object):
        return prepare(card, sources, out, **{"workers": 1, **options})

    return run
