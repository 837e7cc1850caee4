"""What a sample is asked for, and what weak pixels become: alike for a model and for an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ovrs.errors import ConfigError, VocabularyError
from ovrs.scores import ScoreRule
from ovrs.structures import Sample
from ovrs.vocabulary import Vocabulary, words_of


@dataclass(frozen=True)
class Asking:
    """The configured part of what is asked of samples.

    Attributes:
        classes: class strings of samples that bring neither classes nor a data set.
        dataset: the data set of such samples, where there are no ``classes``.
        threshold: pixels whose best probability is below it are ``background``; 0 for none.
        thresholds: {data set: other threshold}.
        background: the class that they get, by one of its words, or of several separated by ``|``; a vocabulary
            without it gets one label more, after the last ("other").
    """

    classes: Sequence[str] = ()
    dataset: str = ""
    threshold: float = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    background: str = ""

    @classmethod
    def of(cls, cfg: CfgNode) -> Asking:
        """Read ``VOCABULARY.CLASSES``, ``TEST`` and, where it lists a single set, ``DATASETS``."""
        return cls(
            classes=cfg.VOCABULARY.CLASSES,
            dataset=next((sets[0] for sets in (cfg.DATASETS.TEST, cfg.DATASETS.TRAIN) if len(sets) == 1), ""),
            threshold=cfg.TEST.THRESHOLD,
            thresholds=_pairs(cfg.TEST.THRESHOLDS),
            background=cfg.TEST.BACKGROUND,
        )

    def class_strings(self, sample: Sample) -> tuple[str, ...]:
        """Return the classes of a sample: its own, its data set's, or the configured ones.

        Raises:
            VocabularyError: there are none.
        """
        classes = sample.get("vocabulary")
        if isinstance(classes, str):
            raise VocabularyError(f"a sample's 'vocabulary' must be a list of class strings, got {classes!r} alone.")
        if classes is not None:
            return tuple(classes)
        name = sample.get("dataset")
        if name is None and self.classes:
            return tuple(self.classes)
        name = self.dataset if name is None else name
        if name not in MetadataCatalog:
            raise VocabularyError(
                "a sample needs 'vocabulary' (class strings) or 'dataset' (a registered name), or the configuration "
                f"VOCABULARY.CLASSES or a single test set; the sample's 'dataset' is {sample.get('dataset')!r}."
            )
        metadata = MetadataCatalog.get(name)
        return tuple(metadata.get("class_strings") or metadata.stuff_classes)

    def groups(self, samples: Sequence[Sample]) -> dict[tuple[tuple[str, ...], str | None], list[int]]:
        """Return {(class strings, data set if it has a threshold): indices} of samples that are asked together."""
        groups: dict[tuple[tuple[str, ...], str | None], list[int]] = {}
        for index, sample in enumerate(samples):
            dataset = sample.get("dataset") if sample.get("dataset") in self.thresholds else None
            groups.setdefault((self.class_strings(sample), dataset), []).append(index)
        return groups

    def rule(
        self, rule: ScoreRule, vocabulary: Vocabulary, threshold: float | None = None, dataset: str | None = None
    ) -> ScoreRule:
        """Return a rule with a threshold and the background class of a vocabulary.

        Args:
            rule: what scores mean.
            vocabulary: the classes.
            threshold: ``None`` takes the configured one for ``dataset``.
            dataset: registered name, where the images belong to a data set.
        """
        if threshold is None:
            threshold = self.thresholds.get(dataset, self.threshold)
        wanted = set(words_of(self.background)) if self.background else set()
        below = next((index for index, words in enumerate(vocabulary.synonyms) if wanted.intersection(words)), None)
        return replace(rule, threshold=threshold, below=below)


def _pairs(values: Sequence[Any]) -> dict[str, float]:
    names, numbers = values[::2], values[1::2]
    if (
        len(names) != len(numbers)
        or not all(isinstance(n, str) for n in names)
        or any(isinstance(n, str) for n in numbers)
    ):
        raise ConfigError(f"TEST.THRESHOLDS must be [data set, number, data set, number, ...], got {list(values)}.")
    return dict(zip(names, map(float, numbers), strict=True))
