"""Figure 2 of the DR-Seg paper, upper half: what zero-shot segmentation loses with each single channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tabulate import tabulate
from torch import Tensor

from ovrs.config import ConfigError
from ovrs.data import Record
from ovrs.evaluation import ConfusionMatrix
from ovrs.heads.dr_seg.ranking_file import ChannelRanking, Floats
from ovrs.ranking.labelled import labelled_set
from ovrs.ranking.study import new_figure, write_study
from ovrs.ranking.tower import FrozenTower
from ovrs.ranking.zero_shot import protocol, scenes, similarity

IMAGES = 200
_SHOWN = 10  # channels at each end of the table
_TINY = 1e-12  # lower bound of a squared norm


@dataclass(frozen=True, eq=False)
class PilotStudy:
    """mIoU in percent without each channel.

    Attributes:
        dataset: registered name.
        images: number of images.
        seed: they were drawn with.
        baseline: mIoU with all channels.
        drop: [C] baseline minus mIoU without the channel; positive where the channel helps.
        score: [C] of the ranking.
        protocol: what the figures depend on.
    """

    dataset: str
    images: int
    seed: int
    baseline: float
    drop: Floats
    score: Floats
    protocol: dict[str, Any]

    @property
    def correlation(self) -> float | None:
        """Spearman's, of score and drop: positive if the ranking is sane; ``None`` if all drops are equal."""
        return spearman(self.score, self.drop)

    def summary(self) -> str:
        """Return the main figures in a line."""
        correlation = "undefined" if self.correlation is None else f"{self.correlation:+.3f}"
        return (
            f"{self.dataset}, {self.images} images: mIoU {self.baseline:.2f} with all channels; without one of them it "
            f"drops by {self.drop.min():.3f} to {self.drop.max():.3f}. Spearman correlation of score and drop: "
            f"{correlation}."
        )

    def table(self) -> str:
        """Return the channels whose loss hurts most and least as a Markdown table."""
        order = np.argsort(-self.drop, kind="stable")
        ends = order if len(order) <= 2 * _SHOWN else np.concatenate([order[:_SHOWN], order[-_SHOWN:]])
        rows = [[channel, f"{self.drop[channel]:.4f}", f"{self.score[channel]:.4f}"] for channel in ends]
        return tabulate(rows, ["channel", "drop of mIoU", "score"], tablefmt="github", disable_numparse=True)

    def write(self, stem: str | Path) -> list[Path]:
        """Write STEM.json (all channels), STEM.md (both ends) and STEM.png, and return their paths."""
        content = {
            "dataset": self.dataset,
            "images": self.images,
            "seed": self.seed,
            "baseline_miou": self.baseline,
            "spearman": self.correlation,
            "drop": self.drop.tolist(),
            "score": self.score.tolist(),
            "protocol": self.protocol,
        }
        page = f"# Zero-shot segmentation without single channels\n\n{self.summary()}\n\n{self.table()}\n"
        figure = new_figure(columns=2)
        left, right = figure.subplots(1, 2)
        left.plot(np.sort(self.drop)[::-1])
        left.axhline(0, color="grey", linewidth=0.8)
        left.set(xlabel="channels, by drop", ylabel="drop of mIoU (points)", title="without one channel")
        right.plot(self.score, self.drop, ".", markersize=4)
        right.set(xlabel="score", ylabel="drop of mIoU (points)", title="does the score foretell it?")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        return write_study(stem, content, page, figure)


def study_single_channels(
    cfg: CfgNode, tower: FrozenTower, ranking: ChannelRanking, dataset: str, images: int = IMAGES, seed: int = 0
) -> PilotStudy:
    """Score frozen, upright features with each channel masked in turn, in image and text alike.

    Args:
        cfg: reads DATASETS.ROOT, INPUT, TEST.CROP_PADDING and TEST.MIOU_RULE.
        tower: gives features and class embeddings.
        ranking: of the tower's joint space.
        dataset: what :func:`ovrs.data.resolve_datasets` takes; with labels.
        images: how many are drawn; at most all are taken.
        seed: of the draw.

    Raises:
        ConfigError: no image asked for.
        DataError: the data set cannot be read, or has no labels.
    """
    if images < 1:
        raise ConfigError(f"the pilot study needs at least one image, got {images}.")
    name, _ = labelled_set(cfg, dataset)
    records = drawn_records(cfg, name, images, seed)
    words = tower.classes(MetadataCatalog.get(name).class_strings)
    whole = ConfusionMatrix(len(words))
    masked = [ConfusionMatrix(len(words)) for _ in ranking.order]
    for scene in scenes(cfg, tower, records, f"masking channels on {name}"):
        scene.count(similarity(scene.features, words), whole)
        for scores, matrix in zip(without_each_channel(scene.features, words), masked, strict=True):
            scene.count(scores, matrix)

    rule = cfg.TEST.MIOU_RULE
    baseline = whole.metrics(rule).miou
    return PilotStudy(
        dataset=name,
        images=len(records),
        seed=seed,
        baseline=baseline,
        drop=baseline - np.array([matrix.metrics(rule).miou for matrix in masked]),
        score=ranking.score,
        protocol=protocol(cfg, tower, ranking),
    )


def drawn_records(cfg: CfgNode, dataset: str, images: int, seed: int) -> list[Record]:
    """Return ``images`` records of a labelled data set (all, if it has fewer), drawn by the seed, sorted by stem."""
    _, records = labelled_set(cfg, dataset)
    chosen = np.random.default_rng(seed).permutation(len(records))[:images]
    return [records[index] for index in sorted(chosen)]


def without_each_channel(features: Tensor, words: Tensor) -> Iterator[Tensor]:
    """Yield, channel by channel, the [T, h, w] cosines of [C, h, w] features and [T, C] words with it set to 0 in both.

    The dot products and squared norms of all channels are computed once; a channel's own share is then taken from
    them. In float64, since the difference may be small.
    """
    features, words = features.double(), words.double()
    dots = torch.einsum("tc,chw->thw", words, features)
    image_squares, word_squares = (features**2).sum(dim=0), (words**2).sum(dim=1)
    for image, word in zip(features, words.T, strict=True):
        image_norm = (image_squares - image**2).clamp_min(_TINY).sqrt()
        word_norm = (word_squares - word**2).clamp_min(_TINY).sqrt()
        cosines = (dots - word[:, None, None] * image) / (word_norm[:, None, None] * image_norm)
        yield cosines.float()


def spearman(first: Floats, second: Floats) -> float | None:
    """Return the rank correlation of two [n] arrays, -1..1, equal values sharing their mean rank.

    ``None`` where all values of one array are equal, which leaves it undefined.
    """
    ranks = [_shared_ranks(values) for values in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _shared_ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
