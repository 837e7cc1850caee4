"""Several models answer together: the probabilities of their classes are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ovrs.config import load_config
from ovrs.data.augmentation import SizeRule
from ovrs.engine.checkpoint import UNTRAINED, load_configured
from ovrs.errors import ConfigError
from ovrs.inference.asking import Asking
from ovrs.inference.views import ScoreMap
from ovrs.scores import ScoreRule
from ovrs.segmenter import EncodedImages, OpenVocabSegmenter, Segmentation
from ovrs.structures import Sample
from ovrs.vocabulary import Vocabulary


@META_ARCH_REGISTRY.register()
class Ensemble(nn.Module):
    """Trained and training-free models with one vocabulary, for prediction and evaluation.

    Every member sees images at the size and through the windows of its own configuration, reads words through its own
    templates, refines scores by its own ``TEST.REFINE``, and gives the probabilities that its own head means, one per
    class, at the size of the result; there they are averaged. The images of a call are given to it together. Thresholds
    are the ensemble's alone: those of members, and their background classes, are not applied.

    Args:
        members: the models, filled.
        configurations: of the members.
        shares: the weight of each; they sum to 1.
        asking: the ensemble's own classes, thresholds and background.
        keep_scores: whether results hold ``sem_seg`` from the start.
        weights_sha256: what tells its checkpoints from others.
    """

    @configurable
    def __init__(
        self,
        members: Sequence[OpenVocabSegmenter],
        configurations: Sequence[CfgNode],
        shares: Sequence[float],
        asking: Asking,
        keep_scores: bool = False,
        weights_sha256: str = UNTRAINED,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.configurations, self.shares = tuple(configurations), tuple(shares)
        self.asking, self.keep_scores, self.weights_sha256 = asking, keep_scores, weights_sha256

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the members that ``MODEL.ENSEMBLE`` lists.

        Raises:
            ConfigError: no members, shares or checkpoints of another number, or a key that only members use.
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
        for key, value, remedy in (
            ("MODEL.WEIGHTS", cfg.MODEL.WEIGHTS, "name the checkpoints of its members in MODEL.ENSEMBLE.CHECKPOINTS"),
            ("TEST.REFINE", cfg.TEST.REFINE, "its members refine scores themselves: set it in their configurations"),
            ("INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST, "its members resize images themselves: set it to 0"),
        ):
            if value:
                raise ConfigError(f"{key} is {value!r}, which an ensemble does not use; {remedy}.")
        members, configurations, sums = [], [], []
        for name, checkpoint in zip(node.CONFIGS, checkpoints, strict=True):
            own = load_config(name, ["MODEL.WEIGHTS", checkpoint, "MODEL.DEVICE", cfg.MODEL.DEVICE])
            if cls.__name__ == own.MODEL.META_ARCHITECTURE:
                raise ConfigError(f"MODEL.ENSEMBLE.CONFIGS: {name} is an ensemble itself; list its members instead.")
            member = META_ARCH_REGISTRY.get(own.MODEL.META_ARCHITECTURE)(own).eval()
            sums.append(load_configured(member, own))
            members.append(member)
            configurations.append(own)
        total = sum(shares)
        return {
            "members": members,
            "configurations": configurations,
            "shares": [share / total for share in shares],
            "asking": Asking.of(cfg),
            "keep_scores": cfg.TEST.OUTPUT == "scores",
            "weights_sha256": UNTRAINED if set(sums) == {UNTRAINED} else sha256(" ".join(sums).encode()).hexdigest(),
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
        results: list[Segmentation | None] = [None] * len(batched_inputs)
        for (classes, dataset), indices in self.asking.groups(batched_inputs).items():
            encoded, vocabulary = self.encode([batched_inputs[i] for i in indices]), self.vocabulary(classes)
            rule = self.rule(vocabulary, dataset=dataset)
            for index, found in zip(indices, self.decode(encoded, vocabulary, rule), strict=True):
                results[index] = found
        return results

    def encode(self, samples: Sequence[Sample], *, keep: bool = False) -> list[EncodedImages]:
        """Encode images for :meth:`decode`; see :meth:`ovrs.segmenter.OpenVocabSegmenter.encode`."""
        return [
            member.encode([_resized(sample, SizeRule.of(own)) for sample in samples], keep=keep)
            for member, own in zip(self.members, self.configurations, strict=True)
        ]

    def decode(
        self, encoded: Sequence[EncodedImages], vocabulary: Vocabulary, rule: ScoreRule | None = None
    ) -> list[Segmentation]:
        """Segment encoded images into the classes of a vocabulary."""
        rule = replace(rule or self.rule(vocabulary), activation="none")  # probabilities already
        class_of = torch.arange(len(vocabulary), device=self.device)
        sums: list[Tensor | float] = [0.0] * len(encoded[0].wanted)
        for member, images, share in zip(self.members, encoded, self.shares, strict=True):
            own = Vocabulary(vocabulary.synonyms, member.templates)
            for index, found in enumerate(member.decode(images, own)):
                sums[index] = sums[index] + share * found["sem_seg"]
        results = []
        for scores in sums:
            size = tuple(scores.shape[-2:])
            results.append(Segmentation(ScoreMap(scores, size, size), rule, class_of))
            if self.keep_scores:
                results[-1]["sem_seg"]
        return results

    def rule(self, vocabulary: Vocabulary, threshold: float | None = None, dataset: str | None = None) -> ScoreRule:
        """Return what the averaged probabilities mean; ``softmax`` where a member only compares classes.

        The arguments are those of :meth:`ovrs.segmenter.OpenVocabSegmenter.rule`.
        """
        compares = any(member.rule(vocabulary).activation == "softmax" for member in self.members)
        return self.asking.rule(ScoreRule("softmax" if compares else "none"), vocabulary, threshold, dataset)


def _resized(sample: Sample, size: SizeRule) -> Sample:
    """Return a sample as a member wants it; the size of the result stays."""
    image = sample["image"]
    height, width = image.shape[-2:]
    resized = size(np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0)))
    pixels = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    return {"height": height, "width": width, **sample, "image": pixels}
