"""Several models answer together: the probabilities of their classes are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ovrs.config import load_config
from ovrs.data.augmentation import SizeRule
from ovrs.engine.checkpoint import load_configured
from ovrs.errors import ConfigError
from ovrs.inference.views import ScoreMap
from ovrs.scores import ScoreRule
from ovrs.segmenter import EncodedImages, OpenVocabSegmenter, Segmentation
from ovrs.structures import Sample
from ovrs.vocabulary import Vocabulary, words_of


@META_ARCH_REGISTRY.register()
class Ensemble(nn.Module):
    """Trained and training-free models with one vocabulary, for prediction and evaluation.

    Every member sees images at the size and through the windows of its own configuration, reads words through its own
    templates, and gives probabilities at the size of the result; these are averaged there.

    Args:
        members: the models, filled.
        sizes: how each resizes images.
        shares: the weight of each; they sum to 1.
        threshold: as ``TEST.THRESHOLD``; those of members are not applied.
        background: as ``TEST.BACKGROUND``.
    """

    @configurable
    def __init__(
        self,
        members: Sequence[OpenVocabSegmenter],
        sizes: Sequence[SizeRule],
        shares: Sequence[float],
        threshold: float = 0.0,
        background: str = "",
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.sizes, self.shares = tuple(sizes), tuple(shares)
        self.threshold, self.background = threshold, background

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the members that ``MODEL.ENSEMBLE`` lists.

        Raises:
            ConfigError: no members, shares or checkpoints of another number, or images that come resized.
        """
        node = cfg.MODEL.ENSEMBLE
        count = len(node.CONFIGS)
        shares = list(node.SHARES) or [1.0] * count
        checkpoints = list(node.CHECKPOINTS) or [""] * count
        if not count or {len(shares), len(checkpoints)} != {count} or min(shares) <= 0:
            raise ConfigError(
                "MODEL.ENSEMBLE needs CONFIGS, and as many SHARES (above 0) and CHECKPOINTS ('' for models that need "
                f"no training), or none of these; found {count}, {len(node.SHARES)} and {len(node.CHECKPOINTS)}."
            )
        if cfg.INPUT.MIN_SIZE_TEST:
            raise ConfigError(
                f"INPUT.MIN_SIZE_TEST is {cfg.INPUT.MIN_SIZE_TEST}, but the members of an ensemble resize images "
                "themselves: set it to 0."
            )
        members, sizes = [], []
        for name, checkpoint in zip(node.CONFIGS, checkpoints, strict=True):
            own = load_config(name, ["MODEL.WEIGHTS", checkpoint, "MODEL.DEVICE", cfg.MODEL.DEVICE])
            if cls.__name__ == own.MODEL.META_ARCHITECTURE:
                raise ConfigError(f"MODEL.ENSEMBLE.CONFIGS: {name} is an ensemble itself; list its members instead.")
            member = META_ARCH_REGISTRY.get(own.MODEL.META_ARCHITECTURE)(own).eval()
            load_configured(member, own)
            members.append(member)
            sizes.append(SizeRule.of(own))
        total = sum(shares)
        return {
            "members": members,
            "sizes": sizes,
            "shares": [share / total for share in shares],
            "threshold": cfg.TEST.THRESHOLD,
            "background": cfg.TEST.BACKGROUND,
        }

    @property
    def device(self) -> torch.device:
        """The device that the members compute on."""
        return self.members[0].device

    @property
    def templates(self) -> tuple[str, ...]:
        """The first member's templates; only the words of a vocabulary are shared."""
        return self.members[0].templates

    def vocabulary(self, classes: Sequence[str]) -> Vocabulary:
        """Return the vocabulary of class strings."""
        return self.members[0].vocabulary(classes)

    def forward(self, batched_inputs: Sequence[Sample]) -> list[Segmentation]:
        """Segment samples, see :meth:`ovrs.segmenter.OpenVocabSegmenter.forward`."""
        if self.training:
            raise ConfigError("an ensemble is not trained; train its members and name their checkpoints.")
        results = []
        for sample in batched_inputs:
            vocabulary = self.vocabulary(self.members[0].class_strings(sample))
            results += self.decode(self.encode([sample]), vocabulary)
        return results

    def encode(self, samples: Sequence[Sample], *, keep: bool = False) -> list[EncodedImages]:
        """Encode images for :meth:`decode`; see :meth:`ovrs.segmenter.OpenVocabSegmenter.encode`."""
        return [
            member.encode([_resized(sample, size) for sample in samples], keep=keep)
            for member, size in zip(self.members, self.sizes, strict=True)
        ]

    def decode(
        self, encoded: Sequence[EncodedImages], vocabulary: Vocabulary, rule: ScoreRule | None = None
    ) -> list[Segmentation]:
        """Segment encoded images into the classes of a vocabulary."""
        rule = replace(rule or self.rule(vocabulary), activation="sigmoid")  # probabilities already
        class_of = torch.arange(len(vocabulary), device=self.device)
        sums: list[Tensor | float] = [0.0] * len(encoded[0].wanted)
        for member, images, share in zip(self.members, encoded, self.shares, strict=True):
            own = Vocabulary(vocabulary.synonyms, member.templates)
            for index, found in enumerate(member.decode(images, own)):
                sums[index] = sums[index] + share * found["sem_seg"]
        sizes = [tuple(scores.shape[-2:]) for scores in sums]
        return [
            Segmentation(ScoreMap(scores, size, size), rule, class_of) for scores, size in zip(sums, sizes, strict=True)
        ]

    def rule(self, vocabulary: Vocabulary, threshold: float | None = None, dataset: str | None = None) -> ScoreRule:
        """Return what the averaged probabilities mean; ``softmax`` where a member only compares classes."""
        compares = any(member.head.rule.activation == "softmax" for member in self.members)
        wanted = set(words_of(self.background)) if self.background else set()
        below = next((index for index, words in enumerate(vocabulary.synonyms) if wanted.intersection(words)), None)
        threshold = self.threshold if threshold is None else threshold
        return ScoreRule("softmax" if compares else "sigmoid", threshold=threshold, below=below)


def _resized(sample: Sample, size: SizeRule) -> Sample:
    """Return a sample as a member wants it; the size of the result stays."""
    image = sample["image"]
    height, width = image.shape[-2:]
    resized = size(np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0)))
    pixels = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    return {"height": height, "width": width, **sample, "image": pixels}
