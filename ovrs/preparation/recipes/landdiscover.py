"""LandDiscover50K: five data sets merged into one with 40 classes, and the sets that are parts of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ovrs.data.card import DatasetCard
from ovrs.data.catalog import built_in_cards
from ovrs.errors import DataError
from ovrs.files import replacing
from ovrs.preparation.jobs import Job, JobResult, PairJob, link_or_copy, pixels_per_id
from ovrs.preparation.labels import OriginalLabels
from ovrs.preparation.recipe import Recipe, drawn, fact
from ovrs.preparation.recipes import loveda, openearthmap
from ovrs.preparation.sources import Member, Source, paired
from ovrs.preparation.tiling import Tiling

logger = logging.getLogger(__name__)

Pair = tuple[str, Member, Member]  # stem, image, labels


class LandDiscover(Recipe):
    """The five sources by the card's table of ids, each with a prefix before its stems."""

    family = "landdiscover50k"
    download = (
        "OpenEarthMap (with the images of xBD), LoveDA (Train.zip, Val.zip), DeepGlobe land cover, SOTA and SIOR of "
        "SAMRS; the folders keep their names OpenEarthMap..., SOTA and SIOR"
    )
    wrong_conversion = (
        "Much large-vehicle or plane: background of SOTA and SIOR, which is 255, stored as their first class. Much "
        "bare land: background of LoveDA, which is 1. Much bridge in SIOR: classes in another order than SAMRS's."
    )

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[PairJob]:
        """Plan one job per image of each source that is there, and warn of the others."""
        splits = tuple(card.splits)
        absent = []
        for name, pairs_of in _SOURCES.items():
            part = fact(card, "merge_map", dict)[name]
            where = f"{card.path}: source.merge_map.{name}"
            encoding = OriginalLabels.of_mapping(part["map"], f"{where}.map", part.get("colour_threshold"))
            tiling = Tiling.of_facts(part["tiling"], f"{where}.tiling") if "tiling" in part else None
            pairs = list(pairs_of(source, card))
            for stem, image, labels in pairs:
                yield PairJob(part["prefix"] + stem, splits, image, labels, encoding, tiling)
            if not pairs:
                absent.append(name)
        if len(absent) == len(_SOURCES):
            raise DataError(f"{source} holds none of {', '.join(absent)}; give the folders or archives of all of them.")
        if absent:
            text = (
                "%s: the source holds nothing of %s. Without it, this is not LandDiscover50K; add it with a second run."
            )
            logger.warning(text, card.name, " and ".join(absent))


class LandDiscoverPart(Recipe):
    """Links to images of a prepared LandDiscover50K, whose labels are shared: one source of it, or images by chance."""

    family = "landdiscover50k_part"
    download = "nothing: --source is the folder LandDiscover50K, prepared into the same --out"
    wrong_conversion = "See gsnet_landdiscover50k_40: images and labels are the same files."

    def jobs(self, source: Source, card: DatasetCard) -> Iterator[LinkJob]:
        """Plan one job per image: those with the prefix of a source, or as many as the card wants."""
        images = source.find(r"TR_Image/([^/]+)\.png", "", optional=True)
        labels = source.find(r"GT_ID/([^/]+)\.png", "", optional=True)
        if not images or not labels:
            raise DataError(_not_prepared(source, card))
        chosen = self._drawn(card, set(images)) if "draw" in card.source else self._prefixed(card, set(images))
        unchanged = {value: value for value, _ in card.labels.table}
        encoding = OriginalLabels.of_mapping(unchanged, f"{card.path}: labels")
        for stem, image, mask in paired(images, labels):
            if stem in chosen:
                yield LinkJob(stem, tuple(card.splits), image, mask, encoding)

    @staticmethod
    def _drawn(card: DatasetCard, stems: set[str]) -> frozenset[str]:
        draw = fact(card, "draw", dict)
        if len(stems) < draw["count"]:
            raise DataError(
                f"{card.name} takes {draw['count']} images out of LandDiscover50K, which has {len(stems)} here; "
                "prepare gsnet_landdiscover50k_40 from all its sources first."
            )
        if len(stems) != draw["of"]:
            text = "%s: the images are drawn from %d instead of %d, so they are others than those of the complete set."
            logger.warning(text, card.name, len(stems), draw["of"])
        text = "%s: which images the paper drew is not published; %d of %d are drawn (seed %d), see the manifest."
        logger.info(text, card.name, draw["count"], len(stems), draw["seed"])
        return drawn(stems, draw["count"], draw["seed"])

    @staticmethod
    def _prefixed(card: DatasetCard, stems: set[str]) -> frozenset[str]:
        prefix = fact(card, "prefix", str)
        chosen = frozenset(stem for stem in stems if stem.startswith(prefix))
        if not chosen:
            raise DataError(
                f"no image of LandDiscover50K starts with {prefix!r}; prepare gsnet_landdiscover50k_40 with this part "
                "of its sources. (Files that the authors merged cannot be told apart by their names.)"
            )
        return chosen


def _not_prepared(source: Source, card: DatasetCard) -> str:
    others = [
        other.name
        for other in built_in_cards()
        if other.splits and str(other.source.get("family", "")).removeprefix("samrs_") in card.aliases
    ]
    hint = f" The data set of its own that has this name is prepared as {' or '.join(others)}." if others else ""
    return (
        f"{source} is no prepared LandDiscover50K (folders TR_Image and GT_ID). {card.name} "
        f"({', '.join(card.aliases)}) is a part of it: prepare gsnet_landdiscover50k_40 first, and give the folder "
        f"LandDiscover50K as --source.{hint}"
    )


@dataclass(frozen=True)
class LinkJob(Job):
    """A hard link to an image whose labels stay where they are.

    Attributes:
        stem: see :class:`Job`.
        splits: see :class:`Job`.
        image: the image.
        labels: its labels, in the folder that the card reads.
        encoding: from stored ids to the same; refuses others.
    """

    stem: str
    splits: tuple[str, ...]
    image: Member
    labels: Member
    encoding: OriginalLabels

    @property
    def members(self) -> tuple[Member, ...]:
        """The image and its labels."""
        return self.image, self.labels

    def estimate(self, card: DatasetCard) -> tuple[int, int]:
        """Links take no room."""
        return 1, 0

    def run(self, card: DatasetCard, out: Path) -> JobResult:
        """Link the image."""
        split = card.splits[self.splits[0]]
        shared = out / str(split.labels) / f"{self.stem}{split.label_suffix}"
        packed = any(member.entry is not None for member in self.members)
        if packed or not shared.is_file() or not shared.samefile(self.labels.file):
            raise DataError(
                f"{card.name} links to images and shares the labels in {shared.parent}, but the source has "
                f"{self.image} and {self.labels}; give the folder {shared.parents[1]} as --source, after "
                "gsnet_landdiscover50k_40 was prepared there."
            )
        values = pixels_per_id(self.encoding.read(self.labels))
        path = f"{split.images}/{self.stem}{split.image_suffix}"
        with replacing(out / path) as temporary:
            link_or_copy(self.image.file, temporary)
        entry = self.image.size, hashlib.sha256(self.image.read()).hexdigest()
        return JobResult(self.stem, self.splits, self.sources, 1, values, {path: entry})


def _openearthmap(source: Source, card: DatasetCard) -> Iterator[Pair]:
    for stem, _, image, labels in openearthmap.listed_pairs(source, card, r"OpenEarthMap[^/]*", optional=True):
        yield stem, image, labels


def _loveda(source: Source, card: DatasetCard) -> Iterator[Pair]:
    for _, number, image, labels in loveda.numbered_pairs(source, optional=True):
        yield number, image, labels


def _deepglobe(source: Source, card: DatasetCard) -> Iterator[Pair]:
    images = source.find(r"(\d+)_sat\.jpg", "train/119_sat.jpg", optional=True)
    labels = source.find(r"(\d+)_mask\.png", "train/119_mask.png", optional=True)
    # the challenge's images for validation and testing have no labels; they lie in folders without any
    labelled = {_folder(member) for member in labels.values()}
    images = {key: member for key, member in images.items() if key in labels or _folder(member) in labelled}
    yield from paired(images, labels)


def _sota(source: Source, card: DatasetCard) -> Iterator[Pair]:
    images = source.find(r"(?i:SOTA)/(?:.*/)?images/([^/]+)\.png", "SOTA/images/P0000.png", optional=True)
    labels = source.find(r"(?i:SOTA)/(?:.*/)?gray/([^/]+)\.png", "SOTA/gray/P0000.png", optional=True)
    yield from paired(images, labels)


def _sior(source: Source, card: DatasetCard) -> Iterator[Pair]:
    images = source.find(r"(?i:SIOR)/(?:.*/)?([^/]+)\.jpg", "SIOR/JPEGImages-trainval/00001.jpg", optional=True)
    labels = source.find(r"(?i:SIOR)/(?:.*/)?gray/([^/]+)\.png", "SIOR/gray/00001.png", optional=True)
    yield from paired(images, labels)


def _folder(member: Member) -> str:
    return member.name.rpartition("/")[0]


_SOURCES: dict[str, Callable[[Source, DatasetCard], Iterator[Pair]]] = {
    "openearthmap": _openearthmap,
    "loveda": _loveda,
    "deepglobe": _deepglobe,
    "sota": _sota,
    "sior": _sior,
}
