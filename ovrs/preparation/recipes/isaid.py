"""iSAID: the images of DOTA-v1.0, labels as colours of classes."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, fact, splits_of_folder
from ovrs.preparation.sources import Source, paired
from ovrs.preparation.tiling import Tiling


class ISAID(Recipe):
    """Images of all sizes cut into overlapping windows; windows without any labelled pixel are left out."""

    family = "isaid"
    download = (
        "the images of DOTA-v1.0 and the Semantic_masks of iSAID, both for train and val, "
        "in folders called train and val"
    )
    wrong_conversion = (
        "Nearly all pixels in one class, or colours that nobody knows: the instance_id masks, which have one colour "
        "per object. Much ship: background (black) taken for the first class."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image."""
        images = source.find(r"(train|val)/(?:.*/)?(P\d+)\.png", "train/images/P0000.png")
        labels = source.find(
            r"(train|val)/(?:.*/)?(P\d+)_instance_color_RGB\.png",
            "train/Semantic_masks/images/P0000_instance_color_RGB.png",
        )
        encoding, tiling = OriginalLabels.of_card(card), Tiling.of_card(card)
        keep_empty = fact(card, "keep_empty", bool)
        for (folder, stem), image, mask in paired(images, labels):
            splits = splits_of_folder(card, folder)
            yield PairJob(stem, splits, image, mask, encoding, tiling, keep_empty=keep_empty)
