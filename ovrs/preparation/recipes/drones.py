"""UDD5 and VDD: photographs from drones in folders ``src``, labels as ids in folders ``gt`` beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, splits_of_folder
from ovrs.preparation.sources import Source, paired


class _SourceAndTruth(Recipe):
    """All splits in one folder, untouched.

    Attributes:
        folders: pattern for the folders of the splits; its group is the split.
        example: one of these folders.
    """

    folders: ClassVar[str]
    example: ClassVar[str]

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image."""
        images = source.find(self.folders + r"/src/([^/]+)\.(?i:jpg)", f"{self.example}/src/DJI_0001.JPG")
        labels = source.find(self.folders + r"/gt/([^/]+)\.png", f"{self.example}/gt/DJI_0001.png")
        encoding = OriginalLabels.of_card(card)
        for (folder, stem), image, mask in paired(images, labels):
            yield PairJob(stem, splits_of_folder(card, folder), image, mask, encoding)


class UDD5(_SourceAndTruth):
    """Five classes; UDD6, in the same archive, has others."""

    family = "udd5"
    download = "the archive of UDD, of which the folder UDD5 is read and UDD6 is not"
    folders = "UDD5/(train|val)"
    example = "UDD5/train"
    wrong_conversion = (
        "Hardly any 'Other' and many ignored pixels: the last class, 4, is scored like all others. Values above 4: "
        "UDD6, which tells facades from roofs and has other ids."
    )


class VDD(_SourceAndTruth):
    """Seven classes."""

    family = "vdd"
    download = "the folders train, val and test of RussRobin/VDD at Hugging Face, each with src and gt"
    folders = "(train|val|test)"
    example = "train"
    wrong_conversion = (
        "Hardly any vegetation and much 'Other': labels of UDD5, where vegetation is 0 and not 3. Labels in RGB: "
        "pictures for people, while the labels hold one id per pixel."
    )
