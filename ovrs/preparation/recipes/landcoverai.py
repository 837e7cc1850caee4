"""LandCover.ai v1: 41 orthophotos, labels as ids, splits as lists of the numbered tiles that they are cut into."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ovrs.data.card import DatasetCard
from ovrs.errors import DataError
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.lists import listed_splits, taken
from ovrs.preparation.recipe import Recipe
from ovrs.preparation.sources import Source, paired
from ovrs.preparation.tiling import Tiling, Window

_TILE = re.compile(r"(.+)_(\d+)")


@dataclass(frozen=True, kw_only=True)
class TilesJob(PairJob):
    """The tiles of an orthophoto that belong to one split, called as in the lists: ``<orthophoto>_<number>``.

    An orthophoto has tiles in several splits, and so several jobs; their names tell them apart.

    Attributes:
        orthophoto: its name.
        numbers: of the tiles that are written, rising.
        listed: of all tiles of the orthophoto that any list names.
    """

    orthophoto: str
    numbers: tuple[int, ...]
    listed: frozenset[int]

    def windows(self, height: int, width: int) -> dict[Window, str]:
        """Return the tiles that are written.

        They are numbered row by row. Whether those that the border cuts off are counted is told by the lists,
        which name full tiles only.

        Raises:
            DataError: neither way of counting makes all listed tiles full ones.
        """
        assert self.tiling is not None
        full = self.tiling.windows(height, width)
        every = replace(self.tiling, edge="pad").windows(height, width)
        for counted in (every, full):
            if all(number < len(counted) and counted[number] in full for number in self.listed):
                return {counted[number]: f"{self.orthophoto}_{number}" for number in self.numbers}
        raise DataError(
            f"{self.image} is {width} x {height} (width x height), which does not hold all tiles that the lists name, "
            f"up to {self.orthophoto}_{max(self.listed)}. Take images and lists from one download."
        )


class LandCoverAI(Recipe):
    """Tiles cut from the orthophotos: those that the authors' script writes are JPEG files, which lose detail."""

    family = "landcoverai"
    download = "landcover.ai.v1.zip"
    wrong_conversion = (
        "Much building, every class one off: 0 is background and 1 is building. No roads: version 0 of the data set, "
        "which does not label them."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[TilesJob]:
        """Plan one job per orthophoto and split."""
        images = source.find(r"images/([^/]+)\.tif", "images/<orthophoto>.tif")
        labels = source.find(r"masks/([^/]+)\.tif", "masks/<orthophoto>.tif")
        lists = listed_splits(source, card)
        tiles = {stem: _orthophoto_and_number(stem) for stem in lists}
        there = {stem for stem, (orthophoto, _) in tiles.items() if orthophoto in images}
        unlisted = images.keys() - {orthophoto for orthophoto, _ in tiles.values()}

        listed: dict[str, set[int]] = defaultdict(set)
        for orthophoto, number in tiles.values():
            listed[orthophoto].add(number)
        wanted: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
        for stem, splits in taken(card, lists, there | unlisted, "Is the download complete?").items():
            orthophoto, number = tiles[stem]
            wanted[orthophoto, splits].append(number)

        encoding, tiling = OriginalLabels.of_card(card), Tiling.of_card(card)
        pairs = {orthophoto: (image, mask) for orthophoto, image, mask in paired(images, labels)}
        for (orthophoto, splits), numbers in sorted(wanted.items()):
            yield TilesJob(
                f"{orthophoto} {'+'.join(splits)}",
                splits,
                *pairs[orthophoto],
                encoding,
                tiling,
                orthophoto=orthophoto,
                numbers=tuple(sorted(numbers)),
                listed=frozenset(listed[orthophoto]),
            )


def _orthophoto_and_number(stem: str) -> tuple[str, int]:
    if match := _TILE.fullmatch(stem):
        return match[1], int(match[2])
    raise DataError(f"the lists name {stem!r}; tiles are called <orthophoto>_<number>. Fetch the lists again.")
