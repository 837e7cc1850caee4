"""UAVid: frames of videos from drones, labels as colours."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, fact, splits_of_folder
from ovrs.preparation.sources import Source, paired
from ovrs.preparation.tiling import Tiling


class UAVid(Recipe):
    """Frames, cut where the card has a tiling; named by their sequence too, as every sequence counts from 0."""

    family = "uavid"
    download = "uavid_train and uavid_val; for cards of the test split test_gt, which has its labels"
    wrong_conversion = (
        "Human common, moving car, low vegetation and tree exchanged in a circle: ids of the authors' tool kit, which "
        "counts the classes in another order. Take the colours (Labels), not what the tool kit makes of them (TrainId)."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per frame."""
        folders = fact(card, "original_splits", dict)
        pattern = rf"(?:uavid_)?({'|'.join(folders)})/(seq\d+)/{{}}/(\d+)\.png"
        example = f"uavid_{next(iter(folders))}/seq1/{{}}/000000.png"
        images = source.find(pattern.format("Images"), example.format("Images"))
        labels = source.find(pattern.format("Labels"), example.format("Labels"))
        encoding = OriginalLabels.of_card(card)
        tiling = Tiling.of_card(card) if "tiling" in card.source else None
        for (folder, sequence, frame), image, mask in paired(images, labels):
            yield PairJob(f"{sequence}_{frame}", splits_of_folder(card, folder), image, mask, encoding, tiling)
