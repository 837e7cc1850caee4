"""DLRSD: the images of UC Merced, labels as ids in palette files."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ovrs.data.card import DatasetCard
from ovrs.data.rasters import open_image
from ovrs.errors import DataError
from ovrs.preparation.jobs import JobResult, PairJob, PairWriter
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, drawn, fact
from ovrs.preparation.sources import Key, Member, Source, paired

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SquareJob(PairJob):
    """A pair in which image and labels that are no square of one side are brought to it together.

    Attributes:
        side: of the square, in pixels.
    """

    side: int

    def run(self, card: DatasetCard, out: Path) -> JobResult:
        """Write the pair."""
        writer = PairWriter(card, out, self)
        labels = self.encoding.read(self.labels)
        with open_image(self.image) as image:
            self.require_same_size(image, labels)
            pixels = image.rows(0, image.height)
        if labels.shape != (self.side, self.side):
            pixels = self._resized(pixels, Image.Resampling.BICUBIC)
            labels = self._resized(labels, Image.Resampling.NEAREST)  # no ids between ids
        writer.write(self.stem, pixels, labels)
        return writer.result

    def _resized(self, pixels: np.ndarray, method: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize((self.side, self.side), method))


class DLRSD(Recipe):
    """Small images in one folder per scene; a share of every scene is drawn for validation."""

    family = "dlrsd"
    download = "the folders Images and Labels of DLRSD, with one folder per scene in each"
    wrong_conversion = (
        "Values above 17 before, or 16 after the conversion: the palette files were read as grey, which gives the "
        "brightness of what they paint. Every class one off: the ids start at 1."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[SquareJob]:
        """Plan one job per image. Names differ in case between images and labels of some copies."""
        images = _in_lower_case(
            source.find(r"Images/([^/]+)/([^/]+)\.(?:tif|png|jpg)", "Images/airplane/airplane00.tif")
        )
        labels = _in_lower_case(source.find(r"Labels/([^/]+)/([^/]+)\.png", "Labels/airplane/airplane00.png"))
        encoding, side = OriginalLabels.of_card(card), fact(card, "side", int)
        draw = fact(card, "draw", dict)
        logger.info(
            "%s: which images the authors of the protocol took for validation is not published; %.0f %% of every scene "
            "are drawn (seed %d).",
            card.name,
            100 * draw["share"],
            draw["seed"],
        )
        scenes = defaultdict(list)
        for scene, stem in images:
            scenes[scene].append(stem)
        chosen = {
            scene: drawn(stems, round(draw["share"] * len(stems)), draw["seed"]) for scene, stems in scenes.items()
        }
        for (scene, stem), image, mask in paired(images, labels):
            splits = tuple(draw["drawn" if stem in chosen[scene] else "others"])
            yield SquareJob(stem, splits, image, mask, encoding, side=side)


def _in_lower_case(members: Mapping[Key, Member]) -> dict[tuple[str, ...], Member]:
    found: dict[tuple[str, ...], Member] = {}
    for key, member in members.items():
        lower = tuple(part.lower() for part in key)
        if lower in found:
            raise DataError(f"{found[lower]} and {member} differ in case only; give --source only one of them.")
        found[lower] = member
    return found
