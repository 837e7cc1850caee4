"""The one meta-architecture: towers, text, head, criterion and inference in Detectron2's clothes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor, nn

from ovrs.backbones import VLM, ClipCompanion, Prior, build_companion, build_prior, build_vlm, encode_rotations
from ovrs.backbones.base import trains
from ovrs.heads import Head, build_head
from ovrs.inference import SlidingWindow, label_map, whole_image_scores
from ovrs.inference.labels import enlarge
from ovrs.losses import build_loss
from ovrs.structures import IGNORE_LABEL, ImageFeatures, PriorFeatures
from ovrs.vocabulary import TextBank, Vocabulary, VocabularyError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@META_ARCH_REGISTRY.register()
class OpenVocabSegmenter(nn.Module):
    """Segments images into the classes of each image's own vocabulary.

    Args:
        vlm: vision-language model.
        prior: self-supervised prior, or ``None``.
        head: segmentation head.
        companion: a second CLIP image tower, or ``None``.
        criterion: training loss; also says how logits become scores.
        text_bank: encodes and caches vocabularies.
        templates: prompt templates of every vocabulary.
        pixel_mean, pixel_std: statistics on the 0..255 scale, RGB.
        prior_mean, prior_std: the prior's own; empty for the same.
        tower_precision, head_precision: ``fp32``, ``bf16`` or ``fp16``.
        window: sliding-window inference; ``None`` for one pass per image.
        size_divisibility: images are padded to a multiple of this, where they are not windows.
        crop_padding: whether that padding is cut off the result again.
        keep_scores: whether results carry all scores (``sem_seg``, [T, H, W]) beside the labels.
    """

    @configurable
    def __init__(
        self,
        *,
        vlm: VLM,
        prior: Prior | None,
        head: Head,
        criterion: nn.Module,
        text_bank: TextBank,
        templates: Sequence[str],
        companion: ClipCompanion | None = None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        prior_mean: Sequence[float] = (),
        prior_std: Sequence[float] = (),
        tower_precision: str = "fp32",
        head_precision: str = "fp32",
        window: SlidingWindow | None = None,
        size_divisibility: int = 32,
        crop_padding: bool = True,
        keep_scores: bool = False,
    ) -> None:
        super().__init__()
        self.vlm, self.prior, self.companion, self.head = vlm, prior, companion, head
        self.criterion, self.text_bank, self.templates = criterion, text_bank, tuple(templates)
        self.window, self.size_divisibility, self.crop_padding = window, size_divisibility, crop_padding
        self.keep_scores = keep_scores
        for name, precision in (("TOWERS", tower_precision), ("HEAD", head_precision)):
            if precision not in _DTYPES:
                raise ValueError(f"MODEL.PRECISION.{name} must be one of {', '.join(_DTYPES)}, got {precision!r}.")
        self.tower_dtype, self.head_dtype = _DTYPES[tower_precision], _DTYPES[head_precision]
        self.request = head.request()

        mean, std = _channels(pixel_mean), _channels(pixel_std)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        # The prior's normalisation, applied on top of the common one.
        own_mean, own_std = (_channels(prior_mean), _channels(prior_std)) if len(prior_mean) else (mean, std)
        self.register_buffer("prior_scale", std / own_std, persistent=False)
        self.register_buffer("prior_shift", (mean - own_mean) / own_std, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build every part. With ``MODEL.WEIGHTS`` set, that file fills the towers too: nothing is fetched for them."""
        load_towers = not cfg.MODEL.WEIGHTS
        vlm, prior = build_vlm(cfg, load_weights=load_towers), build_prior(cfg, load_weights=load_towers)
        companion = build_companion(cfg, load_weights=load_towers)
        node = cfg.TEST.SLIDING_WINDOW
        window = SlidingWindow(node.CANVAS, node.KERNEL, node.OVERLAP, node.GLOBAL_VIEW, node.BATCH_SIZE)
        if cfg.TEST.OUTPUT not in ("labels", "scores"):
            raise ValueError(f"TEST.OUTPUT must be 'labels' or 'scores', got {cfg.TEST.OUTPUT!r}.")
        return {
            "vlm": vlm,
            "prior": prior,
            "companion": companion,
            "head": build_head(cfg, vlm.spec, prior and prior.spec, companion and companion.spec),
            "criterion": build_loss(cfg.MODEL.LOSS.NAME, cfg.MODEL.LOSS.IGNORE_MODE, cfg.MODEL.LOSS.NORMALISE_BY),
            "text_bank": TextBank(cfg.VOCABULARY.SYNONYMS),
            "templates": Vocabulary.templates_of(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "prior_mean": cfg.MODEL.PRIOR.PIXEL_MEAN,
            "prior_std": cfg.MODEL.PRIOR.PIXEL_STD,
            "tower_precision": cfg.MODEL.PRECISION.TOWERS,
            "head_precision": cfg.MODEL.PRECISION.HEAD,
            "window": window if node.ENABLED else None,
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
            "crop_padding": cfg.TEST.CROP_PADDING,
            "keep_scores": cfg.TEST.OUTPUT == "scores",
        }

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Train on or segment a batch of records.

        Args:
            batched_inputs: dictionaries with ``image`` (uint8 or float [3, h, w], RGB, 0..255) and either
                ``vocabulary`` (class strings) or ``dataset`` (a registered name). In training also
                ``sem_seg`` (int64 [h, w], 255 ignored) and, where data sets share a vocabulary,
                ``labelled_classes`` (bool [T], see ``DATASETS.UNLABELLED_CLASSES``); in evaluation
                optionally ``height`` and ``width``, the size of the result (default: the image's).

        Returns:
            In training ``{"loss_sem_seg": scalar}``. Otherwise per record ``labels`` [H, W] (class indices),
            ``scores`` [H, W] (the winner's, 0..1), and ``sem_seg`` [T, H, W] if scores are kept.

        Raises:
            VocabularyError: a record without classes, or with classes that cannot be used.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for index, record in enumerate(batched_inputs):
            groups.setdefault(_class_strings(record), []).append(index)

        if self.training:
            # Each vocabulary's mean counts by its number of images.
            losses = [
                self._loss([batched_inputs[i] for i in indices], self.vocabulary(classes)) * len(indices)
                for classes, indices in groups.items()
            ]
            return {"loss_sem_seg": torch.stack(losses).sum() / len(batched_inputs)}

        results: list[dict[str, Tensor]] = [{} for _ in batched_inputs]
        for classes, indices in groups.items():
            predictions = self._segment([batched_inputs[i] for i in indices], self.vocabulary(classes))
            for index, prediction in zip(indices, predictions, strict=True):
                results[index] = prediction
        return results

    def vocabulary(self, classes: Sequence[str]) -> Vocabulary:
        """Return the vocabulary of class strings under this model's templates."""
        return Vocabulary.from_strings(classes, self.templates)

    def class_logits(self, images: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Return [B, T, h, w] logits of normalised [B, 3, H, W] images."""
        with self._autocast(self.tower_dtype):
            text = self.text_bank(self.vlm, vocabulary, self.training)
            image, prior = self._image_features(images), self._prior_features(images)
        with self._autocast(self.head_dtype):
            return self.head(image, text, prior)

    def normalise(self, image: Tensor) -> Tensor:
        """Bring [..., 3, H, W] images from 0..255 to zero mean and unit variance."""
        return (image.to(self.device).float() - self.pixel_mean) / self.pixel_std

    # ------------------------------------------------------------------ training

    def _loss(self, records: list[dict[str, Any]], vocabulary: Vocabulary) -> Tensor:
        images = [self.normalise(record["image"]) for record in records]
        images = ImageList.from_tensors(images, self.size_divisibility).tensor
        labels = [record["sem_seg"].to(self.device) for record in records]
        labels = ImageList.from_tensors(labels, self.size_divisibility, pad_value=IGNORE_LABEL).tensor
        labelled = None
        if "labelled_classes" in records[0]:
            labelled = torch.stack([record["labelled_classes"] for record in records]).to(self.device)
        return self.criterion(self.class_logits(images, vocabulary), labels, labelled)

    # ------------------------------------------------------------------ inference

    def _segment(self, records: list[dict[str, Any]], vocabulary: Vocabulary) -> list[dict[str, Tensor]]:
        images = [self.normalise(record["image"]) for record in records]
        sizes = [
            (int(r.get("height", i.shape[-2])), int(r.get("width", i.shape[-1])))
            for r, i in zip(records, images, strict=True)
        ]

        softmax = self.criterion.activation == "softmax"

        def classify(views: Tensor) -> Tensor:
            logits = self.class_logits(views, vocabulary).float()
            if self.window is not None:
                logits = _to_square(logits, self.window.kernel)
            return logits if softmax else logits.sigmoid()

        if self.window is not None:
            maps = list(zip(self.window(images, classify), sizes, strict=True))
        else:
            maps = whole_image_scores(images, sizes, classify, self.size_divisibility, self.crop_padding)

        results = []
        for (score, padded_size), (height, width) in zip(maps, sizes, strict=True):
            labels, best = label_map(score, padded_size, softmax=softmax)
            result = {"labels": labels[:height, :width], "scores": best[:height, :width]}
            if self.keep_scores:
                full = enlarge(score, padded_size)[:, :height, :width]
                result["sem_seg"] = full.softmax(dim=0) if softmax else full
            results.append(result)
        return results

    # ------------------------------------------------------------------ towers

    def _image_features(self, images: Tensor) -> ImageFeatures:
        wants_grad = torch.is_grad_enabled() and any(p.requires_grad for p in self.vlm.image_parameters())
        square = _to_square(images, self.vlm.spec.input_size)
        with torch.set_grad_enabled(wants_grad):
            if self.request.rotations:
                features = encode_rotations(self.vlm, square, self.request)
            else:
                features = self.vlm.encode_image(square, self.request)
        companion = {}
        if self.companion is not None and self.request.companion_blocks:
            with torch.no_grad():
                views = _to_square(images, self.companion.spec.input_size)
                companion = self.companion(views, self.request.companion_blocks)
        return ImageFeatures(
            dense=features.dense.float(),
            blocks=_in_fp32(features.blocks),
            rotated=features.rotated if features.rotated is None else features.rotated.float(),
            companion=_in_fp32(companion),
        )

    def _prior_features(self, images: Tensor) -> PriorFeatures | None:
        if self.prior is None or not self.request.uses_prior:
            return None
        images = images * self.prior_scale + self.prior_shift
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains(self.prior)):
            features = self.prior(_to_square(images, self.prior.spec.input_size), self.request)
        return PriorFeatures(features.dense.float(), _in_fp32(features.blocks))

    def _autocast(self, dtype: torch.dtype) -> contextlib.AbstractContextManager:
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype)


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1)


def _in_fp32(blocks: dict[int, Tensor]) -> dict[int, Tensor]:
    return {index: block.float() for index, block in blocks.items()}


def _to_square(images: Tensor, side: int) -> Tensor:
    """Resize [B, C, H, W] to ``side`` x ``side``, the proportions regardless; 0 leaves the size."""
    if not side or tuple(images.shape[-2:]) == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)


def _class_strings(record: dict[str, Any]) -> tuple[str, ...]:
    if "vocabulary" in record:
        classes = record["vocabulary"]
        if isinstance(classes, str):
            raise VocabularyError(f"a record's 'vocabulary' must be a list of class strings, got {classes!r} alone.")
        return tuple(classes)
    name = record.get("dataset")
    if name not in MetadataCatalog:
        raise VocabularyError(
            f"a record needs 'vocabulary' (class strings) or 'dataset' (a registered name); its 'dataset' is {name!r}."
        )
    return tuple(MetadataCatalog.get(name).class_strings)
