"""FLAIR #1: aerial images of 512 x 512 with five bands, in folders by domain."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, splits_of_id
from ovrs.preparation.sources import Key, Member, Source, paired


class Flair(Recipe):
    """Red, green and blue of the five bands; the domain decides about the split."""

    family = "flair"
    download = (
        "flair_1_aerial_test and flair_1_labels_test; for training also flair_aerial_train and flair_labels_train"
    )
    wrong_conversion = (
        "No building, every class one off: 1 is building, not background. Images with odd colours: a TIFF of five "
        "bands (red, green, blue, infrared, elevation) that was opened as red, green, blue and alpha."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image of the card's domains. Numbers are unique over all domains, zones do not matter."""
        pattern, example = r"(D\d+_\d+)/([^/]+)/{}_(\d+)\.tif", "D012_2019/<zone>/{}_061713.tif"
        images, labels = (source.find(pattern.format(part), example.format(part)) for part in ("img/IMG", "msk/MSK"))
        encoding = OriginalLabels.of_card(card)
        for (domain, _, number), image, mask in paired(_belonging(card, images), _belonging(card, labels)):
            yield PairJob(f"flair_{number}", splits_of_id(card, domain, image), image, mask, encoding)


def _belonging(card: DatasetCard, members: dict[Key, Member]) -> dict[Key, Member]:
    return {key: member for key, member in members.items() if splits_of_id(card, key[0], member)}
