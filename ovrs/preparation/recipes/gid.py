"""GID, the large-scale set: 150 scenes of 7200 x 6800 with five classes as colours."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.errors import DataError
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, drawn, fact
from ovrs.preparation.sources import Source, paired
from ovrs.preparation.tiling import Tiling

logger = logging.getLogger(__name__)


class GID(Recipe):
    """Scenes cut into windows. Which scenes the paper validates on is not published; the card says how we draw them."""

    family = "gid"
    download = "the folders image_RGB and label_5classes of 'Large-scale Classification_5classes'"
    wrong_conversion = (
        "Built up and water exchanged, and forest and meadow: a reader that takes blue for red. Red forests: "
        "image_NirRGB instead of image_RGB. Colours that nobody knows: the 15 classes of GID-15 on the same scenes."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per scene. The draw needs all scenes: with fewer, others would be drawn."""
        name = r"(GF2_PMS\d__L1A\w+-MSS\d)"
        images = source.find(rf"image_RGB/{name}\.tif", "image_RGB/GF2_PMS1__L1A<number>-MSS1.tif")
        labels = source.find(
            rf"label_5classes/{name}_label\.tif", "label_5classes/GF2_PMS1__L1A<number>-MSS1_label.tif"
        )
        draw = fact(card, "draw", dict)
        if len(images) != draw["of"]:
            raise DataError(
                f"{source} holds {len(images)} scenes in image_RGB instead of {draw['of']}; those for "
                f"{', '.join(draw['drawn'])} are drawn from all of them, so give all."
            )
        text = "%s: the paper's validation scenes are not published; %d of %d are drawn (seed %d), see the manifest."
        logger.info(text, card.name, draw["count"], draw["of"], draw["seed"])
        chosen = drawn(images, draw["count"], draw["seed"])
        encoding, tiling = OriginalLabels.of_card(card), Tiling.of_card(card)
        for scene, image, mask in paired(images, labels):
            splits = tuple(draw["drawn" if scene in chosen else "others"])
            yield PairJob(scene, splits, image, mask, encoding, tiling)
