"""Inria aerial image labelling: 180 tiles of 5000 x 5000 of five towns with labels, buildings white."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, splits_of_id
from ovrs.preparation.sources import Source, paired
from ovrs.preparation.tiling import Tiling


class Inria(Recipe):
    """Tiles cut into windows; the benchmark's own test towns have no labels."""

    family = "inria"
    download = "AerialImageDataset, of which the folder train is read: the labels of test are withheld"
    wrong_conversion = "Everything building: 0 and 255 exchanged."

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per tile."""
        images = source.find(r"train/images/([a-z-]+\d+)\.tif", "train/images/austin1.tif")
        labels = source.find(r"train/gt/([a-z-]+\d+)\.tif", "train/gt/austin1.tif")
        encoding, tiling = OriginalLabels.of_card(card), Tiling.of_card(card)
        for tile, image, mask in paired(images, labels):
            yield PairJob(tile, splits_of_id(card, tile, image), image, mask, encoding, tiling)
