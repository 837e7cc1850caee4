"""ISPRS Potsdam: 38 tiles of 6000 x 6000, labels as colours with or without the borders of objects."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.data.prepare.jobs import PairJob
from ovrs.data.prepare.labels import OriginalLabels
from ovrs.data.prepare.recipe import Recipe, fact, splits_of_id
from ovrs.data.prepare.sources import Key, Member, Source, paired
from ovrs.data.prepare.tiling import Tiling

logger = logging.getLogger(__name__)

_LABEL_SETS = ("label", "label_noBoundary")


class Potsdam(Recipe):
    """Tiles cut into windows; ``source.label_set`` says which of the two label archives a protocol uses."""

    family = "potsdam"
    download = "2_Ortho_RGB.zip (or 4_Ortho_RGBIR.zip) and 5_Labels_all.zip or 5_Labels_all_noBoundary.zip"
    wrong_conversion = (
        "Low vegetation rare and car common, that is, exchanged: a reader that takes blue for red. No labels in the "
        "windows of tile 4_12 and few cars in those of 6_7: colours compared exactly, although these two tiles were "
        "stored with loss. Thin ignored lines around all objects: the noBoundary labels."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per tile."""
        example = "top_potsdam_2_10_RGB.tif"
        images = source.find(r"top_potsdam_(\d+_\d+)_RGB\.tif", example, optional=True)
        if not images:  # the first three bands of the four are the same picture
            images = source.find(r"top_potsdam_(\d+_\d+)_RGBIR\.tif", example)
        encoding, tiling = OriginalLabels.of_card(card), Tiling.of_card(card)
        for tile, image, labels in paired(images, self._labels(source, card)):
            splits = splits_of_id(card, tile, image)
            yield PairJob(f"potsdam_{tile}", splits, image, labels, encoding, tiling)

    @staticmethod
    def _labels(source: Source, card: DatasetCard) -> dict[Key, Member]:
        wanted = fact(card, "label_set", str)
        for label_set in sorted(_LABEL_SETS, key=lambda name: name != wanted):
            example = f"top_potsdam_2_10_{label_set}.tif"
            pattern = rf"top_potsdam_(\d+_\d+)_{label_set}\.tif"
            if labels := source.find(pattern, example, optional=label_set == wanted):
                break
        if label_set != wanted:
            text = "%s wants labels called ..._%s.tif; the source has only ..._%s.tif, so these are taken."
            logger.warning(text, card.name, wanted, label_set)
        return labels
