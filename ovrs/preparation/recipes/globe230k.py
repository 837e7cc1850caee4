"""Globe230k: 232,819 images of 512 x 512 from all over the world, labels as ids, splits as lists."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.lists import listed_splits, taken
from ovrs.preparation.recipe import Recipe
from ovrs.preparation.sources import Source, paired


class Globe230k(Recipe):
    """Images stay as they are; validation and test are also one split together, which the protocol scores."""

    family = "globe230k"
    download = "image_patch.zip, the archive of annotations and the split lists; no other modality (NDVI, DEM, VV/VH)"
    wrong_conversion = (
        "Much cropland and no ice, every class one off: 1 is the first class, not 0. A large share of ignored pixels: "
        "ids are documented from 1 on, and 0 should be rare."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image."""
        images = source.find(r"([^/]+)\.jpg", "image_patch/data_3.jpg")
        labels = source.find(r"([^/]+)\.png", "data_3.png")
        splits = taken(card, listed_splits(source, card), images, "Is the download complete?")
        encoding = OriginalLabels.of_card(card)
        for stem, image, mask in paired(images, labels):
            if stem in splits:
                yield PairJob(stem, splits[stem], image, mask, encoding)
