"""ISPRS Potsdam: 38 tiles of 6000 x 6000, labels as colours with or without the borders of objects."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, splits_of_id
from ovrs.preparation.recipes.isprs import labels_of_set
from ovrs.preparation.sources import Source, paired
from ovrs.preparation.tiling import Tiling

_LABEL_SETS = {
    "label": (r"top_potsdam_(\d+_\d+)_label\.tif", "top_potsdam_2_10_label.tif"),
    "label_noBoundary": (r"top_potsdam_(\d+_\d+)_label_noBoundary\.tif", "top_potsdam_2_10_label_noBoundary.tif"),
}


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
        for tile, image, labels in paired(images, labels_of_set(source, card, _LABEL_SETS)):
            splits = splits_of_id(card, tile, image)
            yield PairJob(f"potsdam_{tile}", splits, image, labels, encoding, tiling)
