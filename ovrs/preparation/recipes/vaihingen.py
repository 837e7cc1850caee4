"""ISPRS Vaihingen: 33 areas of all sizes in false colours, labels as colours with or without borders."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.errors import shortened
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, fact, splits_of_id
from ovrs.preparation.recipes.isprs import labels_of_set
from ovrs.preparation.sources import Source, paired
from ovrs.preparation.tiling import Tiling

logger = logging.getLogger(__name__)

# The complete labels are called as the images are. Only the folder tells them apart: the archive of the images
# has these two, the second with a part of the labels.
_IMAGES = "top/"
_PARTIAL_LABELS = "gts_for_participants/"
_LABEL_SETS = {
    "label": (
        rf"(?!{_IMAGES}|{_PARTIAL_LABELS})[^/]+/top_mosaic_09cm_(area\d+)\.tif",
        "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE/top_mosaic_09cm_area1.tif",
    ),
    "label_noBoundary": (
        r"top_mosaic_09cm_(area\d+)_noBoundary\.tif",
        "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE/top_mosaic_09cm_area1_noBoundary.tif",
    ),
}


class Vaihingen(Recipe):
    """Areas cut into windows; the bands stay infrared, red and green, as the benchmark has them."""

    family = "vaihingen"
    download = (
        "ISPRS_semantic_labeling_Vaihingen.zip (the images) and ISPRS_semantic_labeling_Vaihingen_ground_truth_"
        "COMPLETE.zip or ..._ground_truth_eroded_COMPLETE.zip"
    )
    wrong_conversion = (
        "Low vegetation rare and car common, that is, exchanged: a reader that takes blue for red. Green trees in the "
        "images: these are in false colours, trees must be red. Thin ignored lines around objects: the eroded labels."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per area. The labels of areas that have no image (area 9 is one) are left out."""
        images = source.find(rf"{_IMAGES}top_mosaic_09cm_(area\d+)\.tif", "top/top_mosaic_09cm_area1.tif")
        labels = labels_of_set(source, card, _LABEL_SETS)
        areas = {area for names in fact(card, "split_ids", dict).values() for area in names}
        if spare := sorted(labels.keys() - images.keys() - areas):
            logger.info("%s: labels without image are left out: %s", card.name, shortened(spare))
        labels = {area: member for area, member in labels.items() if area not in spare}
        encoding, tiling = OriginalLabels.of_card(card), Tiling.of_card(card)
        for area, image, mask in paired(images, labels):
            yield PairJob(f"vaihingen_{area}", splits_of_id(card, area, image), image, mask, encoding, tiling)
