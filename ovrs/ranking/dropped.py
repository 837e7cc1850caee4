"""Figure 2 of the DR-Seg paper, lower half: zero-shot segmentation without a fifth of the channels, with maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tabulate import tabulate

from ovrs.data import Record, read_image
from ovrs.evaluation import ConfusionMatrix
from ovrs.heads.dr_seg.ranking_file import RankingError, channel_count
from ovrs.ranking.pilot import PilotStudy, drawn_records
from ovrs.ranking.study import new_figure, write_study
from ovrs.ranking.tower import FrozenTower
from ovrs.ranking.zero_shot import scenes, similarity
from ovrs.structures import IGNORE_LABEL
from ovrs.visualization import Picture, colourise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARE = 0.2  # of the channels, in the paper's figure
_SHOWN = 4  # images


@dataclass(frozen=True, eq=False)
class DroppedStudy:
    """mIoU in percent with all channels, and without those that single masking found to help most or least.

    Attributes:
        dataset: registered name.
        images: number of images.
        share: of the channels that is dropped, 0..1.
        miou: {variant: mIoU}.
        maps: (image stem, {panel: picture}) of the shown images: image, truth, and each variant's map.
        protocol: what the figures depend on.
    """

    dataset: str
    images: int
    share: float
    miou: dict[str, float]
    maps: list[tuple[str, dict[str, Picture]]]
    protocol: dict[str, Any]

    def table(self) -> str:
        """Return the mIoU of every variant as a Markdown table."""
        first = next(iter(self.miou.values()))
        rows = [[name, f"{value:.2f}", f"{value - first:+.2f}"] for name, value in self.miou.items()]
        return tabulate(rows, ["channels", "mIoU", "change"], tablefmt="github", disable_numparse=True)

    def write(self, stem: str | Path) -> list[Path]:
        """Write STEM.json, STEM.md and STEM.png (the maps) and return their paths."""
        content = {
            "dataset": self.dataset,
            "images": self.images,
            "share": self.share,
            "miou": self.miou,
            "shown": [name for name, _ in self.maps],
            "protocol": self.protocol,
        }
        page = f"# Zero-shot segmentation without a share of the channels\n\n{self.dataset}, {self.images} images.\n\n"
        return write_study(stem, content, f"{page}{self.table()}\n", self.figure())

    def figure(self) -> Figure:
        """Return the maps, an image per row and a variant per column, with its mIoU."""
        figure = new_figure(columns=2)
        columns = len(self.maps[0][1])
        figure.set_size_inches(2.2 * columns, 2.4 * len(self.maps))
        axes = figure.subplots(len(self.maps), columns, squeeze=False)
        for number, (row, (name, panels)) in enumerate(zip(axes, self.maps, strict=True)):
            for cell, (title, picture) in zip(row, panels.items(), strict=True):
                cell.imshow(picture)
                cell.set(xticks=[], yticks=[])
                if number == 0:
                    value = f"\n{self.miou[title]:.2f}" if title in self.miou else ""
                    cell.set_title(f"{title}{value}", fontsize=8)
            row[0].set_ylabel(name, fontsize=7)
        return figure


def study_dropped_channels(
    cfg: CfgNode, tower: FrozenTower, study: PilotStudy, share: float = SHARE, shown: int = _SHOWN
) -> DroppedStudy:
    """Score frozen, upright features without the channels that a pilot study found to help most, and least.

    Dropped channels are taken away from image and text alike, and both are normalised again. The paper does not say by
    which order its top channels are the top; here it is the drop of mIoU that :func:`study_single_channels` measured.

    Args:
        cfg: as for the pilot study.
        tower: likewise.
        study: its result; the same images are read again.
        share: of the channels.
        shown: number of images whose maps are drawn, from the first.

    Raises:
        RankingError: a share that drops no channel or all.
        DataError: the data set cannot be read.
    """
    channels = len(study.drop)
    count = channel_count(share, channels)
    if not 0 < count < channels:
        raise RankingError(f"a share of {share} drops {count} of {channels} channels; choose one between.")
    order = torch.from_numpy(np.argsort(-study.drop, kind="stable")).to(tower.device)
    variants = {
        "all channels": slice(None),
        f"without the top {share:.0%}": order[count:],
        f"without the last {share:.0%}": order[:-count],
    }
    records = drawn_records(cfg, study.dataset, study.images, study.seed)
    metadata = MetadataCatalog.get(study.dataset)
    words = tower.classes(metadata.class_strings)
    matrices = {name: ConfusionMatrix(len(words)) for name in variants}
    maps: list[tuple[str, dict[str, Picture]]] = []
    for record, scene in zip(
        records, scenes(cfg, tower, records, f"dropping channels on {study.dataset}"), strict=True
    ):
        labels = {}
        for name, kept in variants.items():
            labels[name] = scene.labels(similarity(scene.features, words, kept))
            matrices[name].update(scene.truth, labels[name])
        if len(maps) < shown:
            found = {"truth": scene.truth, **labels}
            maps.append((record["stem"], _panels(record, found, metadata.stuff_colors)))
    return DroppedStudy(
        dataset=study.dataset,
        images=len(records),
        share=share,
        miou={name: matrix.metrics(cfg.TEST.MIOU_RULE).miou for name, matrix in matrices.items()},
        maps=maps,
        protocol=study.protocol,
    )


def _panels(record: Record, maps: dict[str, torch.Tensor], colours: Sequence[Sequence[int]]) -> dict[str, Picture]:
    pictures = {name: colourise(labels.cpu().numpy(), colours, IGNORE_LABEL) for name, labels in maps.items()}
    return {"image": read_image(record["file_name"]), **pictures}
