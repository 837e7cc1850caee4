"""Zero-shot segmentation by plain cosine similarity, which shows what channels are worth without training anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor

from ovrs.data import Record, SegmentationMapper
from ovrs.evaluation import ConfusionMatrix
from ovrs.heads.dr_seg.ranking_file import ChannelRanking
from ovrs.inference import WholeImage
from ovrs.ranking.labelled import progress
from ovrs.ranking.tower import FrozenTower
from ovrs.scores import ScoreRule


@dataclass(frozen=True)
class Scene:
    """The features of one image, computed once for all masks of channels.

    Attributes:
        features: [C, h, w], not normalised.
        truth: int64 [H, W], at the size of the label file.
        enlarged: size of the enlarged scores, of which the first H rows and W columns are the result.
    """

    features: Tensor
    truth: Tensor
    enlarged: tuple[int, int]

    def labels(self, scores: Tensor) -> Tensor:
        """Return the label map [H, W] of [T, h, w] scores."""
        height, width = self.truth.shape
        labels, _ = ScoreRule().label_map(scores, self.enlarged)
        return labels[:height, :width]

    def count(self, scores: Tensor, matrix: ConfusionMatrix) -> None:
        """Enter the label map of [T, h, w] scores into a confusion matrix."""
        matrix.update(self.truth, self.labels(scores))


def scenes(cfg: CfgNode, tower: FrozenTower, records: Sequence[Record], task: str) -> Iterator[Scene]:
    """Yield the features of every record as whole-image inference sees it.

    Args:
        cfg: reads INPUT and TEST.CROP_PADDING.
        tower: gives the features.
        records: with labels, of one data set.
        task: shown beside the progress bar.

    Raises:
        DataError: a file that cannot be read.
    """
    mapper = SegmentationMapper(cfg, False, dataset_names=sorted({record["dataset"] for record in records}))
    plan = WholeImage(cfg.INPUT.SIZE_DIVISIBILITY, cfg.TEST.CROP_PADDING)
    for record in progress(records, task):
        sample = mapper(record)
        size = (sample["height"], sample["width"])
        found = tower.dense_of_padded(sample["image"], size, plan)
        yield Scene(found.scores, sample["sem_seg"].to(tower.device), found.full)


def similarity(features: Tensor, words: Tensor, channels: Tensor | slice = slice(None)) -> Tensor:
    """Return [T, h, w] cosines of [C, h, w] features and [T, C] words, as if some channels were all there are."""
    image, text = F.normalize(features[channels], dim=0), F.normalize(words[:, channels], dim=1)
    return torch.einsum("tc,chw->thw", text, image)


def protocol(cfg: CfgNode, tower: FrozenTower, ranking: ChannelRanking) -> dict[str, Any]:
    """Return what zero-shot figures depend on besides the data set, as plain JSON values."""
    return {
        "vlm_sha256": tower.sha256,
        "input_size": tower.side,
        "templates": list(tower.templates),
        "synonyms": cfg.VOCABULARY.SYNONYMS,
        "miou_rule": cfg.TEST.MIOU_RULE,
        "min_size_test": cfg.INPUT.MIN_SIZE_TEST,
        "max_size_test": cfg.INPUT.MAX_SIZE_TEST,
        "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
        "crop_padding": cfg.TEST.CROP_PADDING,
        "ranking": ranking.meta,
    }
