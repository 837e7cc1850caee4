"""What passes between the two steps of inference, and what comes out of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ovrs.inference.views import ScoreMap
from ovrs.scores import ScoreRule, enlarge
from ovrs.structures import TowerFeatures

Features = dict[str, TowerFeatures]  # by tower name


@dataclass(frozen=True)
class EncodedImages:
    """What the towers say about a batch of images; can be classified into any vocabulary, any number of times.

    Attributes:
        own: (height, width) of the images as the model saw them.
        wanted: (height, width) of their results.
        batches: (keys, features) of every batch of views, see :mod:`ovrs.inference.views`.
        guide: what the post-processor needs of the images.
    """

    own: list[tuple[int, int]]
    wanted: list[tuple[int, int]]
    batches: Iterable[tuple[list[Any], Features]]
    guide: Any = None


class Segmentation(dict):
    """The result for one image: ``labels`` [H, W] and ``scores`` [H, W], the winner's in 0..1.

    ``sem_seg`` [T, H, W], the probabilities of all classes that Detectron2's evaluators and drawings read, is
    computed when it is asked for: where only labels are wanted it costs no memory.
    """

    def __init__(self, found: ScoreMap, rule: ScoreRule, class_of: Tensor) -> None:
        height, width = found.size
        labels, scores = rule.label_map(found.scores, found.full, class_of)
        super().__init__(labels=labels[:height, :width], scores=scores[:height, :width])
        self._source = found, rule, class_of

    def __missing__(self, key: str) -> Tensor:
        if key != "sem_seg":
            raise KeyError(key)
        found, rule, class_of = self._source
        full = enlarge(found.scores, found.full)[:, : found.size[0], : found.size[1]]
        self[key] = rule.probabilities(full, class_of)
        return self[key]
