"""Figure 6 of the DR-Seg paper: zero-shot segmentation with the first or the last channels of a ranking alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tabulate import tabulate

from ovrs.evaluation import ConfusionMatrix
from ovrs.heads.dr_seg.ranking_file import ChannelRanking, RankingError, channel_count
from ovrs.ranking.labelled import labelled_set
from ovrs.ranking.study import new_figure, write_study
from ovrs.ranking.tower import FrozenTower
from ovrs.ranking.zero_shot import protocol, scenes, similarity

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # 1.0, where the curves must meet, checks the others


@dataclass(frozen=True)
class RatioCurves:
    """mIoU in percent by the ratio of channels that are kept.

    Attributes:
        ratios: R shares of the channels.
        top: {data set: [R]} with the most semantic channels.
        bottom: {data set: [R]} with the most structural channels.
        protocol: what the figures depend on.
    """

    ratios: tuple[float, ...]
    top: dict[str, list[float]]
    bottom: dict[str, list[float]]
    protocol: dict[str, Any]

    def means(self) -> tuple[list[float], list[float]]:
        """Return both curves' plain means over the data sets."""
        return tuple(np.mean(list(curves.values()), axis=0).tolist() for curves in (self.top, self.bottom))

    def table(self) -> str:
        """Return the mean curves and those of each data set as a Markdown table."""
        curves = {"mean": self.means(), **{name: (self.top[name], self.bottom[name]) for name in self.top}}
        headers = ["kept"] + [f"{name}, {side}" for name in curves for side in ("top", "bottom")]
        columns = [side for pair in curves.values() for side in pair]
        rows = [[f"{ratio:.0%}", *values] for ratio, *values in zip(self.ratios, *columns, strict=True)]
        return tabulate(rows, headers, tablefmt="github", floatfmt=".2f")

    def write(self, stem: str | Path) -> list[Path]:
        """Write STEM.json, STEM.md and STEM.png and return their paths."""
        top, bottom = self.means()
        content = {
            "ratios": self.ratios,
            "mean": {"top": top, "bottom": bottom},
            "datasets": {name: {"top": self.top[name], "bottom": self.bottom[name]} for name in self.top},
            "protocol": self.protocol,
        }
        note = "mIoU in percent of frozen features with a part of the channels: the first (top) or last of the ranking."
        page = f"# Zero-shot segmentation with ranked channels\n\n{note}\n\n{self.table()}\n"
        figure = new_figure()
        axes = figure.subplots()
        axes.plot(self.ratios, top, "o-", label="top: most semantic")
        axes.plot(self.ratios, bottom, "s--", label="bottom: most structural")
        axes.set(xlabel="share of channels kept", ylabel="mIoU (%)", title=f"mean over {len(self.top)} data set(s)")
        axes.grid(alpha=0.3)
        axes.legend()
        return write_study(stem, content, page, figure)


def verify_ranking(
    cfg: CfgNode,
    tower: FrozenTower,
    ranking: ChannelRanking,
    datasets: Sequence[str],
    ratios: Sequence[float] = RATIOS,
) -> RatioCurves:
    """Score frozen, upright features that keep only a part of the channels, in image and text alike.

    Both are normalised again after channels are taken away; labels are the argmax of the cosines, enlarged to the
    size of the label file. One pass of the tower per image serves all ratios.

    Args:
        cfg: reads DATASETS.ROOT, INPUT, TEST.CROP_PADDING and TEST.MIOU_RULE.
        tower: gives features and class embeddings.
        ranking: of the tower's joint space.
        datasets: names that :func:`ovrs.data.resolve_datasets` takes; with labels.
        ratios: shares of the channels.

    Raises:
        DataError: a data set that cannot be read, or has no labels.
        RankingError: a ratio that keeps no channel, or is outside 0..1.
    """
    kept = [_kept(ranking, ratio, tower.device) for ratio in ratios]
    sets = [labelled_set(cfg, dataset) for dataset in datasets]  # found before any is scored
    curves: dict[str, list[list[float]]] = {}
    for name, records in sets:
        metadata = MetadataCatalog.get(name)
        words = tower.classes(metadata.class_strings)
        matrices = [[ConfusionMatrix(len(words)) for _ in ratios] for _ in ("top", "bottom")]
        for scene in scenes(cfg, tower, records, f"verifying on {name}"):
            for index, sides in enumerate(kept):
                for side, channels in enumerate(sides):
                    scene.count(similarity(scene.features, words, channels), matrices[side][index])
        curves[name] = [[matrix.metrics(cfg.TEST.MIOU_RULE).miou for matrix in row] for row in matrices]
    return RatioCurves(
        ratios=tuple(ratios),
        top={name: rows[0] for name, rows in curves.items()},
        bottom={name: rows[1] for name, rows in curves.items()},
        protocol=protocol(cfg, tower, ranking),
    )


def _kept(ranking: ChannelRanking, ratio: float, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first and the last floor(ratio * C) channels of the ranking."""
    channels = len(ranking.order)
    count = channel_count(ratio, channels)
    if not count:
        raise RankingError(f"a ratio of {ratio} keeps none of {channels} channels; choose a larger one.")
    order = torch.from_numpy(ranking.order).to(device)
    return order[:count], order[channels - count :]
