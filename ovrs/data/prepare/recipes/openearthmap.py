"""OpenEarthMap: images of many regions and sizes, labels as ids, splits as lists."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.data.prepare.jobs import PairJob
from ovrs.data.prepare.labels import OriginalLabels
from ovrs.data.prepare.lists import listed_splits, taken
from ovrs.data.prepare.recipe import Recipe
from ovrs.data.prepare.sources import Source, paired
from ovrs.data.prepare.tiling import Tiling

_XBD = (
    "The images of xBD are not in the download: fetch them from xView2 and copy them in (xbd_files.csv lists them), "
    "or go on without them and say so with your results."
)


class OpenEarthMap(Recipe):
    """Listed images cut into windows; test labels are withheld, and the images of xBD must be added by hand."""

    family = "openearthmap"
    download = "OpenEarthMap_wo_xBD, and from xView2 the images of xBD that its xbd_files.csv lists"
    wrong_conversion = (
        "No bareland, every class one off: 0 is unknown and 1 is bareland. Fewer images than the card counts: those of "
        "xBD are missing."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image. Labels whose image is missing (those of xBD are in the download) are left out."""
        images = source.find(r"images/([^/]+)\.tif", "<region>/images/<region>_1.tif")
        labels = source.find(r"labels/([^/]+)\.tif", "<region>/labels/<region>_1.tif")
        splits = taken(card, listed_splits(source, card), images, _XBD)
        encoding, tiling = OriginalLabels.of_card(card), Tiling.of_card(card)
        for stem, image, mask in paired({stem: images[stem] for stem in splits}, labels, spare_labels=True):
            yield PairJob(stem, splits[stem], image, mask, encoding, tiling)
