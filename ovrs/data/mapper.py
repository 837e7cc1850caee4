"""From a record of file names to the tensors that the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog

from ovrs.config import ConfigError
from ovrs.data.augmentation import Augmentation, SizeRule, build_augmentations
from ovrs.data.card import DatasetCard
from ovrs.data.pairing import Record
from ovrs.data.reading import read_image, read_pair
from ovrs.data.shared_vocabulary import SharedVocabulary, share_vocabulary
from ovrs.errors import DataError
from ovrs.structures import Sample


class SegmentationMapper:
    """Reads a record, augments it in training, resizes it for the test.

    It keeps the cards of its data sets, so it also works in worker processes that do not inherit
    Detectron2's catalogues.

    Args:
        cards: {registered name: card} of all data sets that records may come from.
        augmentations: training steps, in order; None maps for the test.
        shared: {registered name: its place in a common vocabulary}; None leaves every data set its own.
        ignore_unlabelled: whether samples of a common vocabulary say which classes their data set labels.
        test_size: the size of test images.
    """

    @configurable
    def __init__(
        self,
        cards: Mapping[str, DatasetCard],
        augmentations: Sequence[Augmentation] | None,
        shared: Mapping[str, SharedVocabulary] | None = None,
        ignore_unlabelled: bool = False,
        test_size: SizeRule = SizeRule(),  # noqa: B008 - frozen
    ) -> None:
        self._cards = dict(cards)
        self._augmentations = augmentations
        self._shared = dict(shared or {})
        self._ignore_unlabelled = ignore_unlabelled
        self._test_size = test_size

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool, dataset_names: Sequence[str]) -> dict[str, Any]:
        """Translate ``cfg.INPUT`` and, in training, ``cfg.DATASETS``; ``dataset_names`` are registered names."""
        if cfg.INPUT.FORMAT != "RGB":
            raise ConfigError(f"INPUT.FORMAT must be 'RGB', got {cfg.INPUT.FORMAT!r}; all towers take RGB.")
        for key, known in (("TRAIN_VOCABULARY", ("own", "merged")), ("UNLABELLED_CLASSES", ("negative", "ignored"))):
            if cfg.DATASETS[key] not in known:
                raise ConfigError(f"DATASETS.{key} must be {known[0]!r} or {known[1]!r}, got {cfg.DATASETS[key]!r}.")
        cards = {name: MetadataCatalog.get(name).card for name in dataset_names}
        return {
            "cards": cards,
            "shared": share_vocabulary(cards) if is_train and cfg.DATASETS.TRAIN_VOCABULARY == "merged" else None,
            "ignore_unlabelled": cfg.DATASETS.UNLABELLED_CLASSES == "ignored",
            "augmentations": build_augmentations(cfg) if is_train else None,
            "test_size": SizeRule.of(cfg),
        }

    def __call__(self, record: Record, rng: np.random.Generator | None = None) -> Sample:
        """Map one record.

        Args:
            record: see :class:`ovrs.data.pairing.Record`.
            rng: source of the augmentation's randomness; needed in training only.

        Returns:
            ``image`` uint8 [3, h, w] RGB; ``sem_seg`` int64 [h, w] in training and [height, width] in the
            test, canonical (left out if the record has no labels); ``height`` and ``width`` of the file;
            ``dataset`` and ``file_name`` of the record. With a common vocabulary also its class strings,
            ``vocabulary``, which ``sem_seg`` then counts in, and, if unlabelled classes are ignored,
            ``labelled_classes``, bool [T].

        Raises:
            DataError: see :func:`ovrs.data.reading.read_pair`.
        """
        labels = None
        if "sem_seg_file_name" in record:
            image, labels = read_pair(record["file_name"], record["sem_seg_file_name"], self._cards[record["dataset"]])
        else:
            image = read_image(record["file_name"])
        height, width = image.shape[:2]
        said = record.get("height", height), record.get("width", width)
        if said != (height, width):
            raise DataError(
                f"image {record['file_name']} is {width} x {height} (width x height), but its data set "
                f"{record['dataset']} says {said[1]} x {said[0]}; correct one of them."
            )

        if self._augmentations is None:
            image = self._test_size(image)
        else:
            for augment in self._augmentations:  # by the set's own classes: crops do not depend on other sets
                image, labels = augment(image, labels, rng)

        sample = Sample(
            image=torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            height=height,
            width=width,
            dataset=record["dataset"],
            file_name=record["file_name"],
        )
        if shared := self._shared.get(record["dataset"]):
            labels = shared.relabel(labels)
            sample["vocabulary"] = shared.classes
            if self._ignore_unlabelled:
                sample["labelled_classes"] = shared.labelled
        if labels is not None:
            sample["sem_seg"] = torch.from_numpy(np.ascontiguousarray(labels, np.int64))
        return sample
