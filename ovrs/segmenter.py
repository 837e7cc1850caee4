"""The one meta-architecture: towers, text, head, criterion and inference behind Detectron2's interface of a model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor, nn

from ovrs.backbones import Tower, build_towers
from ovrs.backbones.base import any_trains
from ovrs.caching import parameter_state
from ovrs.errors import choose
from ovrs.heads import Head, build_head
from ovrs.inference import (
    COMPILE,
    CudaGraphs,
    FeatureCache,
    Plan,
    ScoreMap,
    ShortWeights,
    SlidingWindow,
    WholeImage,
    compile_for_inference,
    copied,
    tensors_of,
    with_tensors,
)
from ovrs.inference.asking import Asking
from ovrs.inference.refine import Refiner, build_refiner
from ovrs.inference.results import EncodedImages, Features, Segmentation
from ovrs.losses import build_loss
from ovrs.scores import ScoreRule
from ovrs.structures import IGNORE_LABEL, Sample, TextFeatures, TowerFeatures, TowerRequest
from ovrs.vocabulary import TextBank, Vocabulary

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@META_ARCH_REGISTRY.register()
class OpenVocabSegmenter(nn.Module):
    """Segments images into the classes of each image's own vocabulary.

    Two steps with names: :meth:`embed` turns images into features, once; :meth:`classify` turns features and a
    vocabulary into logits, as often as one likes. :meth:`encode` and :meth:`decode` do the same for images of any
    size, view by view.

    Args:
        towers: {name: tower}; ``vlm`` is there, and encodes text too.
        head: segmentation head; asks the towers for what it needs and says what its scores mean.
        criterion: training loss.
        text_bank: encodes and caches vocabularies.
        templates: prompt templates of every vocabulary.
        plan: how images become views at inference.
        pixel_mean, pixel_std: statistics on the 0..255 scale, RGB.
        tower_statistics: {tower name: (mean, std)} of towers that have their own.
        tower_precision, head_precision: ``fp32``, ``bf16`` or ``fp16``.
        weight_copies: whether passes without gradients read copies of the weights in that type.
        compiled: what is compiled at inference, see :data:`ovrs.inference.COMPILE`.
        cuda_graphs: whether passes on a GPU are recorded and replayed at inference.
        feature_cache: keeps what frozen towers say.
        size_divisibility: training images are padded to a multiple of this.
        asking: classes of samples that bring none, and what weak pixels become.
        refiner: post-processor of scores.
        keep_scores: whether results hold ``sem_seg`` from the start.
    """

    @configurable
    def __init__(
        self,
        *,
        towers: Mapping[str, Tower],
        head: Head,
        criterion: nn.Module,
        text_bank: TextBank,
        templates: Sequence[str],
        plan: Plan,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        tower_statistics: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {},
        tower_precision: str = "fp32",
        head_precision: str = "fp32",
        weight_copies: bool = True,
        compiled: str = "none",
        cuda_graphs: bool = False,
        feature_cache: FeatureCache | None = None,
        size_divisibility: int = 32,
        asking: Asking | None = None,
        refiner: Refiner | None = None,
        keep_scores: bool = False,
    ) -> None:
        super().__init__()
        self._tower_names = tuple(towers)
        for name, tower in towers.items():
            self.add_module(name, tower)
        self.head, self.criterion = head, criterion
        self.requests = head.requests()
        self.text_bank, self.templates, self.plan = text_bank, tuple(templates), plan
        self.size_divisibility, self.keep_scores = size_divisibility, keep_scores
        self.asking, self.refiner = asking or Asking(), refiner
        self.tower_dtype = _DTYPES[choose("MODEL.PRECISION.TOWERS", tower_precision, tuple(_DTYPES))]
        self.head_dtype = _DTYPES[choose("MODEL.PRECISION.HEAD", head_precision, tuple(_DTYPES))]
        choose("TEST.COMPILE", compiled, COMPILE)
        if compiled != "none":
            compile_for_inference(block for tower in towers.values() for block in tower.equal_blocks())
        if compiled == "all":
            compile_for_inference([head])
        self.cuda_graphs, self.feature_cache = cuda_graphs, feature_cache
        self._embedding: CudaGraphs[Features] = CudaGraphs(copied)
        self._classifying: CudaGraphs[Tensor] = CudaGraphs(Tensor.clone)
        parts = [(name, tower, tower.image_parameters(), self.tower_dtype) for name, tower in towers.items()]
        self._copies = {
            name: ShortWeights(part, parameters, dtype)
            for name, part, parameters, dtype in [*parts, ("head", head, head.parameters(), self.head_dtype)]
            if weight_copies and part.short_weights and dtype != torch.float32
        }

        mean, std = _channels(pixel_mean), _channels(pixel_std)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        # A tower's own normalisation is applied on top of the common one.
        self._own_statistics = tuple(tower_statistics)
        for name, (own_mean, own_std) in tower_statistics.items():
            self.register_buffer(f"{name}_scale", std / _channels(own_std), persistent=False)
            self.register_buffer(f"{name}_shift", (mean - _channels(own_mean)) / _channels(own_std), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build every part. With ``MODEL.WEIGHTS`` set, that file fills the towers too: nothing is fetched for them."""
        towers = build_towers(cfg, load_weights=not cfg.MODEL.WEIGHTS)
        shapes = {name: tower.spec for name, tower in towers.items()}
        nodes = {name: cfg.MODEL[name.upper()] for name in towers}
        choose("TEST.OUTPUT", cfg.TEST.OUTPUT, ("labels", "scores"))
        return {
            "towers": towers,
            "head": build_head(cfg, shapes),
            "criterion": build_loss(
                cfg.MODEL.LOSS.NAME, cfg.MODEL.LOSS.IGNORE_MODE, cfg.MODEL.LOSS.NORMALISE_BY, cfg.MODEL.LOSS.BALANCE
            ),
            "text_bank": TextBank(cfg.VOCABULARY.SYNONYMS),
            "templates": Vocabulary.templates_of(cfg),
            "plan": build_plan(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "tower_statistics": {
                name: (node.PIXEL_MEAN, node.PIXEL_STD) for name, node in nodes.items() if node.get("PIXEL_MEAN")
            },
            "tower_precision": cfg.MODEL.PRECISION.TOWERS,
            "head_precision": cfg.MODEL.PRECISION.HEAD,
            "weight_copies": cfg.MODEL.PRECISION.WEIGHT_COPIES,
            "compiled": cfg.TEST.COMPILE,
            "cuda_graphs": cfg.TEST.CUDA_GRAPHS,
            "feature_cache": FeatureCache.of(cfg),
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
            "asking": Asking.of(cfg),
            "refiner": build_refiner(cfg, shapes),
            "keep_scores": cfg.TEST.OUTPUT == "scores",
        }

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return self.pixel_mean.device

    @property
    def towers(self) -> dict[str, Tower]:
        """The towers by name."""
        return {name: getattr(self, name) for name in self._tower_names}

    def forward(self, batched_inputs: Sequence[Sample]) -> dict[str, Tensor] | list[Segmentation]:
        """Train on or segment a batch of samples.

        Args:
            batched_inputs: see :class:`ovrs.structures.Sample`. ``image`` must be there, in training ``sem_seg`` too.
                The classes are the sample's ``vocabulary``, or its ``dataset``'s, or the configured ones.

        Returns:
            In training ``{"loss_sem_seg": scalar}``, otherwise a :class:`Segmentation` per sample.

        Raises:
            VocabularyError: a sample without classes, or with classes that cannot be used.
        """
        groups = self.asking.groups(batched_inputs)
        if self.training:
            # Each vocabulary's mean counts by its number of images.
            losses = [
                self._loss([batched_inputs[i] for i in indices], self.vocabulary(classes)) * len(indices)
                for (classes, _), indices in groups.items()
            ]
            return {"loss_sem_seg": torch.stack(losses).sum() / len(batched_inputs)}

        results: list[Segmentation | None] = [None] * len(batched_inputs)
        for (classes, dataset), indices in groups.items():
            encoded, vocabulary = self.encode([batched_inputs[i] for i in indices]), self.vocabulary(classes)
            rule = self.rule(vocabulary, dataset=dataset)
            for index, found in zip(indices, self.decode(encoded, vocabulary, rule), strict=True):
                results[index] = found
        return results

    def vocabulary(self, classes: Sequence[str]) -> Vocabulary:
        """Return the vocabulary of class strings under this model's templates."""
        return Vocabulary.from_strings(classes, self.templates)

    # ------------------------------------------------------------------ the two steps

    def embed(self, images: Tensor) -> Features:
        """Return what the head asks of every tower, for normalised [B, 3, H, W] images."""
        if self._replays and not self.feature_cache:
            return self._embedding(parameter_state(self.parameters()), [images], lambda given: self._embed(*given))
        return self._embed(images)

    def _embed(self, images: Tensor) -> Features:
        with self._autocast(self.tower_dtype):
            return {name: self._tower_features(name, images, request) for name, request in self.requests.items()}

    def classify(self, features: Features, vocabulary: Vocabulary) -> Tensor:
        """Return the head's logits, [B, T, h, w] (or a row per word, see ``head.rule``)."""
        text = self.text(vocabulary)
        if self._replays and all(part.last_block is None and part.concepts is None for part in features.values()):
            key = (parameter_state(self.head.parameters()), id(text))
            return self._classifying(
                key, tensors_of(features), lambda given: self._classify(with_tensors(features, given), text), keep=text
            )
        return self._classify(features, text)

    def _classify(self, features: Features, text: TextFeatures) -> Tensor:
        with self._autocast(self.head_dtype), self._short_weights("head"):
            return self.head(features, text)

    @property
    def _replays(self) -> bool:
        return self.cuda_graphs and self.device.type == "cuda" and not torch.is_grad_enabled()

    def _short_weights(self, name: str) -> contextlib.AbstractContextManager:
        copies = self._copies.get(name)
        if copies is None:
            return contextlib.nullcontext()
        if torch.is_grad_enabled():  # what trains is read, and will change
            copies.forget()
            return contextlib.nullcontext()
        return copies()

    def text(self, vocabulary: Vocabulary) -> TextFeatures:
        """Return the text features of a vocabulary, encoded at its first use."""
        with self._autocast(self.tower_dtype):
            return self.text_bank(self.vlm, vocabulary, self.training)

    def normalise(self, image: Tensor) -> Tensor:
        """Bring [..., 3, H, W] images from 0..255 to zero mean and unit variance."""
        return (image.to(self.device, non_blocking=True).float() - self.pixel_mean) / self.pixel_std

    # ------------------------------------------------------------------ images of any size

    def encode(self, samples: Sequence[Sample], *, keep: bool = False) -> EncodedImages:
        """Encode images for :meth:`decode`.

        Args:
            samples: images, all to be asked together; ``height`` and ``width`` say the size of the results.
            keep: whether features stay in memory, so that the images can be classified again and again. Otherwise
                they are computed when they are read, which is once.
        """
        images = [self.normalise(sample["image"]) for sample in samples]
        own = [tuple(image.shape[-2:]) for image in images]
        wanted = [
            (int(sample.get("height", height)), int(sample.get("width", width)))
            for sample, (height, width) in zip(samples, own, strict=True)
        ]
        batches = ((keys, self.embed(views)) for keys, views in self.plan.views(images))
        guide = self.refiner.guide(images, self.look) if self.refiner else None
        return EncodedImages(own, wanted, list(batches) if keep else batches, guide)

    def score_maps(self, encoded: EncodedImages, vocabulary: Vocabulary) -> list[ScoreMap]:
        """Return the scores of every image, [T or Q, h, w], in the meaning of :meth:`rule`."""
        scored = (
            (keys, self.head.rule.scores(self.plan.enlarged(keys, self.classify(features, vocabulary).float())))
            for keys, features in encoded.batches
        )
        maps = self.plan.merge(encoded.own, encoded.wanted, scored)
        return self.refiner(maps, encoded.guide, self.head.rule) if self.refiner else maps

    def decode(
        self, encoded: EncodedImages, vocabulary: Vocabulary, rule: ScoreRule | None = None
    ) -> list[Segmentation]:
        """Segment encoded images into the classes of a vocabulary, by :meth:`rule` or another one."""
        rule, class_of = rule or self.rule(vocabulary), self.text(vocabulary).class_of
        results = [Segmentation(found, rule, class_of) for found in self.score_maps(encoded, vocabulary)]
        if self.keep_scores:
            for result in results:
                result["sem_seg"]
        return results

    def rule(self, vocabulary: Vocabulary, threshold: float | None = None, dataset: str | None = None) -> ScoreRule:
        """Return what scores mean, with a threshold and the background class of a vocabulary.

        Args:
            vocabulary: the classes.
            threshold: ``None`` takes the model's own for ``dataset``.
            dataset: registered name, where the images belong to a data set.
        """
        own = self.refiner.rule(self.head.rule) if self.refiner else self.head.rule
        return self.asking.rule(own, vocabulary, threshold, dataset)

    # ------------------------------------------------------------------ parts

    def _loss(self, samples: Sequence[Sample], vocabulary: Vocabulary) -> Tensor:
        images = [self.normalise(sample["image"]) for sample in samples]
        images = ImageList.from_tensors(images, self.size_divisibility).tensor
        labels = [sample["sem_seg"].to(self.device, non_blocking=True) for sample in samples]
        labels = ImageList.from_tensors(labels, self.size_divisibility, pad_value=IGNORE_LABEL).tensor
        labelled = None
        if "labelled_classes" in samples[0]:
            labelled = torch.stack([sample["labelled_classes"] for sample in samples]).to(self.device)
        return self.criterion(self.classify(self.embed(images), vocabulary), labels, labelled)

    def look(self, name: str, images: Tensor) -> TowerFeatures:
        """Return what the refiner asks of a tower, for normalised [B, 3, H, W] images."""
        with self._autocast(self.tower_dtype):
            return self._tower_features(name, images, self.refiner.requests[name])

    def _tower_features(self, name: str, images: Tensor, request: TowerRequest) -> TowerFeatures:
        tower = getattr(self, name)
        if name in self._own_statistics:
            images = images * getattr(self, f"{name}_scale") + getattr(self, f"{name}_shift")
        side = tower.spec.input_size
        if side and tuple(images.shape[-2:]) != (side, side):  # squashed, the proportions regardless
            images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
        trainable = any_trains(tower.image_parameters())
        cached = self.feature_cache and not trainable and self.feature_cache.takes(request)
        ask = partial(self.feature_cache, tower) if cached else tower
        with torch.set_grad_enabled(torch.is_grad_enabled() and trainable), self._short_weights(name):
            return ask(images, request).float()

    def _autocast(self, dtype: torch.dtype) -> contextlib.AbstractContextManager:
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype)


def build_plan(cfg: CfgNode) -> Plan:
    """Return how images become views under ``TEST``."""
    node = cfg.TEST.SLIDING_WINDOW
    if node.ENABLED:
        return SlidingWindow(node.CANVAS, node.KERNEL, node.OVERLAP, node.GLOBAL_VIEW, node.BATCH_SIZE, node.FIT)
    return WholeImage(cfg.INPUT.SIZE_DIVISIBILITY, cfg.TEST.CROP_PADDING, node.BATCH_SIZE)


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1)
