"""OpenEarthMap: images of many regions and sizes, labels as ids, splits as lists."""

from __future__ import annotations

from collections.abc import Iterator

from ovrs.data.card import DatasetCard
from ovrs.preparation.jobs import PairJob
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.lists import listed_splits, taken
from ovrs.preparation.recipe import Recipe
from ovrs.preparation.sources import Member, Source, paired
from ovrs.preparation.tiling import Tiling

_XBD = (
    "The images of xBD are not in the download: fetch them from xView2 and copy them in (xbd_files.csv lists them), "
    "or go on without them and say so with your results."
)


class OpenEarthMap(Recipe):
    """Listed images, cut where the card has a tiling; the images of xBD must be added by hand."""

    family = "openearthmap"
    download = "OpenEarthMap_wo_xBD, and from xView2 the images of xBD that its xbd_files.csv lists"
    wrong_conversion = (
        "No bareland, every class one off: 0 is unknown and 1 is bareland. Fewer images than the card counts: those of "
        "xBD are missing."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image."""
        encoding = OriginalLabels.of_card(card)
        tiling = Tiling.of_card(card) if "tiling" in card.source else None
        for stem, splits, image, mask in listed_pairs(source, card):
            yield PairJob(stem, splits, image, mask, encoding, tiling)


def listed_pairs(
    source: Source, card: DatasetCard, folder: str = "", *, optional: bool = False
) -> Iterator[tuple[str, tuple[str, ...], Member, Member]]:
    """Yield (stem, splits, image, labels). Labels whose image is missing (those of xBD have one) are left out.

    Args:
        source: the original files.
        card: says which lists go into which splits.
        folder: see :func:`~ovrs.preparation.lists.listed_splits`.
        optional: a source without any image is no error.

    Raises:
        DataError: files or lists are missing.
    """
    images = source.find(r"images/([^/]+)\.tif", "<region>/images/<region>_1.tif", optional=optional)
    if not images:
        return
    labels = source.find(r"labels/([^/]+)\.tif", "<region>/labels/<region>_1.tif")
    splits = taken(card, listed_splits(source, card, folder), images, _XBD)
    for stem, image, mask in paired({stem: images[stem] for stem in splits}, labels, spare_labels=True):
        yield stem, splits[stem], image, mask
