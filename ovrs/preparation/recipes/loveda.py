"""LoveDA: rural and urban images of 1024 x 1024, labels as ids."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.errors import DataError
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, splits_of_folder
from ovrs.preparation.sources import Member, Source, paired
from ovrs.preparation.tiling import Tiling


class LoveDA(Recipe):
    """Rural and urban images in one folder, cut where the card has a tiling."""

    family = "loveda"
    download = "Train.zip and Val.zip; Test.zip has no labels"
    wrong_conversion = (
        "Every class one off, or much of the ground called building: 0 taken for background, although 0 is no-data and "
        "1 is background. A no-data class that is common: images without labels among the others."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image."""
        encoding = OriginalLabels.of_card(card)
        tiling = Tiling.of_card(card) if "tiling" in card.source else None
        for folder, number, image, mask in numbered_pairs(source):
            yield PairJob(number, splits_of_folder(card, folder), image, mask, encoding, tiling)


def numbered_pairs(source: Source, *, optional: bool = False) -> Iterator[tuple[str, str, Member, Member]]:
    """Yield ("Train" or "Val", number, image, labels). Numbers are unique over all folders, which is checked.

    Args:
        source: the original files.
        optional: a source without any image and labels is no error.

    Raises:
        DataError: files are missing, or a number occurs twice.
    """
    pattern = r"(Train|Val)/(Rural|Urban)/{}_png/(\d+)\.png"
    images = source.find(pattern.format("images"), "Train/Rural/images_png/0.png", optional=optional)
    labels = source.find(pattern.format("masks"), "Train/Rural/masks_png/0.png", optional=optional)
    numbers: dict[str, Member] = {}
    for (folder, _, number), image, mask in paired(images, labels):
        if number in numbers:
            raise DataError(
                f"{numbers[number]} and {image} have one number, but those of LoveDA are unique; "
                "is one of them from elsewhere? Leave it out of the source."
            )
        numbers[number] = image
        yield folder, number, image, mask
