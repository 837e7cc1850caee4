"""FloodNet (supervised): photographs of 4000 x 3000 from the air, labels as ids."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, splits_of_folder
from ovrs.preparation.sources import Source, paired


class FloodNet(Recipe):
    """Validation and test images in one folder, untouched; labels lose the ``_lab`` of their names."""

    family = "floodnet"
    download = "FloodNet-Supervised_v1.0; its ColorMasks are pictures of the labels and not needed"
    wrong_conversion = (
        "Labels of 1024 x 1024, or values above 9: the ColorMasks, which are pictures of the labels. Other numbers of "
        "images: FloodNet of the challenge of 2021, another set. Background with a share: 0 is ignored."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image. The training images are no part of the protocol."""
        images = source.find(r"(val|test)-org-img/(\d+)\.jpg", "val/val-org-img/6279.jpg")
        labels = source.find(r"(val|test)-label-img/(\d+)_lab\.png", "val/val-label-img/6279_lab.png")
        encoding = OriginalLabels.of_card(card)
        for (folder, number), image, mask in paired(images, labels):
            yield PairJob(number, splits_of_folder(card, folder), image, mask, encoding)
