"""UAVid: frames of videos from drones, labels as colours."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, splits_of_folder
from ovrs.preparation.sources import Source, paired


class UAVid(Recipe):
    """Whole frames, named by their sequence too: every sequence counts its frames from 0."""

    family = "uavid"
    download = "uavid_train and uavid_val; the labels of uavid_test are not published"
    wrong_conversion = (
        "Human common, moving car, low vegetation and tree exchanged in a circle: ids of the authors' tool kit, which "
        "counts the classes in another order. Take the colours (Labels), not what the tool kit makes of them (TrainId)."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per frame."""
        pattern = r"uavid_(train|val)/(seq\d+)/{}/(\d+)\.png"
        images = source.find(pattern.format("Images"), "uavid_train/seq1/Images/000000.png")
        labels = source.find(pattern.format("Labels"), "uavid_train/seq1/Labels/000000.png")
        encoding = OriginalLabels.of_card(card)
        for (folder, sequence, frame), image, mask in paired(images, labels):
            yield PairJob(f"{sequence}_{frame}", splits_of_folder(card, folder), image, mask, encoding)
