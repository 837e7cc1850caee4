"""SAMRS-FAST: crops of FAIR1M, labels as ids that were made from boxes."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.errors import DataError, shortened
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.lists import listed_splits
from ovrs.preparation.recipe import Recipe
from ovrs.preparation.sources import Source, paired


class SAMRSFast(Recipe):
    """The images that the authors list for a split, untouched."""

    family = "samrs_fast"
    download = "FAST of SAMRS: images, the folder gray of the labels, and the list valid.txt"
    wrong_conversion = (
        "Nearly all pixels A220: background, which is 255, was stored as 0. Every class one off: 0 was taken for "
        "background, but it is A220. Values without sense: the pictures in the folder color were taken for ids."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per listed image."""
        images = source.find(r"(?i:FAST)/(?:.*/)?images/([^/]+)\.png", "FAST/images/train_10_0_0.png")
        labels = source.find(r"(?i:FAST)/(?:.*/)?gray/([^/]+)\.png", "FAST/gray/train_10_0_0.png")
        encoding = OriginalLabels.of_card(card)
        splits = listed_splits(source, card, "(?i:FAST)")
        if absent := sorted(splits.keys() - images.keys()):
            raise DataError(
                f"{len(absent)} images that the lists of {card.name} name are not in {source}: {shortened(absent)}. "
                "Add them."
            )
        chosen = ({stem: files[stem] for stem in splits if stem in files} for files in (images, labels))
        for stem, image, mask in paired(*chosen):
            yield PairJob(stem, splits[stem], image, mask, encoding)
