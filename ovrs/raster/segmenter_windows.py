"""The project's model as a scorer of windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ovrs.errors import ConfigError
from ovrs.inference.views import ScoreMap
from ovrs.raster.model import ModelInfo
from ovrs.scores import ScoreRule, enlarge

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ovrs.segmenter import OpenVocabSegmenter
    from ovrs.vocabulary import Vocabulary

GPU_BATCH = 8


def window_side(cfg: CfgNode, model: OpenVocabSegmenter) -> int:
    """Return the side of the windows that a model sees of a raster, in pixels."""
    window = cfg.TEST.SLIDING_WINDOW
    return window.KERNEL if window.ENABLED else model.vlm.spec.input_size or max(cfg.INPUT.CROP.SIZE)


class SegmenterWindows:
    """Scores windows with a segmenter and one vocabulary.

    Scores stay as coarse as the head gives them: they are blended there, and enlarged once, together. ``TEST.REFINE``
    refines every window as an image of its own, before they are blended.

    Args:
        model: the segmenter, ready for inference.
        vocabulary: the words; their classes are the labels.
        rule: how scores are read.
        labels: names of the labels: the vocabulary's classes, and one for weak pixels where ``rule`` has them.
        kernel: side of the windows in pixels.
        identity: what tells the model and its words from others.
        batch_size: windows per pass on a GPU; 0: 8. On a CPU it is 1: more gain nothing there, and round differently.

    Raises:
        ConfigError: ``TEST.REFINE`` lets images decide together: a map would depend on which windows share a pass.
    """

    def __init__(
        self,
        model: OpenVocabSegmenter,
        vocabulary: Vocabulary,
        rule: ScoreRule,
        labels: tuple[str, ...],
        kernel: int,
        identity: dict[str, str],
        batch_size: int = 0,
    ) -> None:
        if model.refiner and model.refiner.joint:
            raise ConfigError(
                "this TEST.REFINE lets the images of a call decide together, so a map would depend on which windows "
                "share a pass; set it to '' or 'pamr' for maps of rasters."
            )
        self._model, self._vocabulary = model, vocabulary
        classes = len(vocabulary)
        batch_size = 1 if model.device.type == "cpu" else batch_size or GPU_BATCH
        with torch.inference_mode():
            side = self._scores(torch.zeros(1, 3, kernel, kernel, dtype=torch.uint8)).shape[-1]
        # Scores whose cells are no whole number of pixels are enlarged to the window.
        self._side = kernel if kernel % side else side
        self.info = ModelInfo(
            names=labels[:classes],
            other="".join(labels[classes:]),
            kernel=kernel,
            cell=kernel // self._side,
            rule=rule,
            class_of=vocabulary.class_of if rule.synonyms == "max" else None,
            identity=identity,
            batch_size=batch_size,
        )

    def score(self, windows: Tensor) -> Tensor:
        """See :class:`ovrs.raster.model.WindowModel`."""
        scores = self._scores(windows)
        if scores.shape[-1] == self._side:
            return scores
        return torch.stack([enlarge(each, (self._side, self._side)) for each in scores])

    def _scores(self, windows: Tensor) -> Tensor:
        images, rule = self._model.normalise(windows), self._model.head.rule
        scores = rule.scores(self._model.classify(self._model.embed(images), self._vocabulary))
        if (refiner := self._model.refiner) is None:
            return scores
        size = tuple(windows.shape[-2:])
        maps = [ScoreMap(each, full=size, size=size) for each in scores]
        refined = refiner(maps, refiner.guide(list(images), self._model.look), rule)
        return torch.stack([found.scores for found in refined])
