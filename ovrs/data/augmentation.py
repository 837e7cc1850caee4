"""Training augmentation: small steps that change an image and its labels together.

Every step takes its random generator as an argument and none keeps state, so what happens to a sample
depends on the generator alone; the loader derives one per sample from the seed and the sample's number.
Arrays are uint8: images [H, W, 3] RGB, labels [H, W] with 255 for ignored.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import transforms
from PIL import Image

from ovrs.errors import ConfigError, choose
from ovrs.structures import IGNORE_LABEL

Pair = tuple[np.ndarray, np.ndarray]

_CROP_REDRAWS = 10
_FLIPS = {"none": (), "horizontal": (1,), "vertical": (0,)}  # array axes


class Augmentation(Protocol):
    """A step of the training augmentation."""

    def __call__(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
        """Return the changed image and labels; the arguments stay as they are."""
        ...


def build_augmentations(cfg: CfgNode) -> tuple[Augmentation, ...]:
    """Return the steps that ``cfg.INPUT`` asks for, in the order of the original projects.

    GSNet is the default configuration. HG-RSOVSSeg's random scale is ``MIN_SIZE_TRAIN_SAMPLING: range``
    with the bounds in ``MIN_SIZE_TRAIN``; its paper's discrete scales are ``choice`` with all of them.

    Raises:
        ConfigError: a key of INPUT holds a value that none of the steps knows.
    """
    node = cfg.INPUT
    steps: list[Augmentation] = []
    if any(node.MIN_SIZE_TRAIN):
        steps.append(ResizeShortestEdge(tuple(node.MIN_SIZE_TRAIN), node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING))
    if node.CROP.ENABLED:
        if node.CROP.TYPE != "absolute":
            raise ConfigError(f"INPUT.CROP.TYPE must be 'absolute' (SIZE in pixels), got {node.CROP.TYPE!r}.")
        height, width = node.CROP.SIZE
        steps.append(RandomCrop(height, width, node.CROP.SINGLE_CATEGORY_MAX_AREA, node.CROP.CLASS_BALANCE))
    if node.COLOR_AUG_SSD:
        steps.append(ColourJitter())
    axes = _FLIPS[choose("INPUT.RANDOM_FLIP", node.RANDOM_FLIP, tuple(_FLIPS))]
    if node.RANDOM_FLIP_VERTICAL and 0 not in axes:
        axes = (*axes, 0)
    if axes:
        steps.append(RandomFlip(axes))
    if node.RANDOM_ROTATE90:
        steps.append(RandomQuarterTurn())
    if node.PAD_TO:
        steps.append(Pad(node.PAD_TO, tuple(node.PAD_VALUE)))
    return tuple(steps)


def resized_shape(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Return (height, width) with the shortest side at ``shortest``, or less to keep the other within ``longest``.

    0 means no change for ``shortest`` and no bound for ``longest``. Sides are rounded half up.
    """
    if not shortest:
        return height, width
    return transforms.ResizeShortestEdge.get_output_shape(height, width, shortest, longest or sys.maxsize)


def resize_image(image: np.ndarray, height: int, width: int, antialias: bool = True) -> np.ndarray:
    """Resize uint8 [H, W, 3] bilinearly, with PIL's low-pass filter where it shrinks, or without (OpenCV)."""
    if image.shape[:2] == (height, width):
        return image
    if not antialias:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class SizeRule:
    """The size at which the model sees images of the test.

    Attributes:
        shortest: shortest side; 0 leaves images as they are.
        longest: bound of the other side; 0 for none.
        antialias: see :func:`resize_image`.
    """

    shortest: int = 0
    longest: int = 0
    antialias: bool = True

    @classmethod
    def of(cls, cfg: CfgNode) -> SizeRule:
        """Read ``INPUT``."""
        return cls(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.ANTIALIAS_TEST)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Resize uint8 [H, W, 3], keeping the proportions."""
        return resize_image(image, *resized_shape(*image.shape[:2], self.shortest, self.longest), self.antialias)


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [H, W] by torch's "nearest": source = floor(target * scale), as the original projects do."""
    if labels.shape == (height, width):
        return labels
    return F.interpolate(torch.from_numpy(labels)[None, None], size=(height, width), mode="nearest")[0, 0].numpy()


@dataclass(frozen=True)
class ResizeShortestEdge:
    """Resize so that the shortest side has a drawn length.

    Attributes:
        lengths: the lengths to choose from, or the two inclusive bounds of a range.
        longest: bound of the other side.
        sampling: "choice" or "range".
    """

    lengths: Sequence[int]
    longest: int
    sampling: str = "choice"

    def __post_init__(self) -> None:
        if self.sampling not in ("choice", "range") or (self.sampling == "range" and len(self.lengths) != 2):
            raise ConfigError(
                "INPUT.MIN_SIZE_TRAIN_SAMPLING must be 'choice', or 'range' with two bounds in "
                f"INPUT.MIN_SIZE_TRAIN; got {self.sampling!r} with {tuple(self.lengths)}."
            )

    def __call__(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
        """Resize both to a drawn length."""
        if self.sampling == "range":
            shortest = int(rng.integers(self.lengths[0], self.lengths[1] + 1))
        else:
            shortest = self.lengths[rng.integers(len(self.lengths))]
        shape = resized_shape(*labels.shape, shortest, self.longest)
        return resize_image(image, *shape), resize_labels(labels, *shape)


@dataclass(frozen=True)
class RandomCrop:
    """Cut a window out at a random place; sides shorter than the window stay.

    Attributes:
        height: of the window.
        width: of the window.
        single_category_max_area: a window is drawn anew, up to ten times, while it shows fewer than two
            classes or one class covers this share of its labelled pixels or more. 1.0 takes any window.
        class_balance: probability that the window is laid around a pixel of one of the image's classes, all equally
            likely, so that small and rare things are seen as often as large ones.
    """

    height: int
    width: int
    single_category_max_area: float = 1.0
    class_balance: float = 0.0

    def __call__(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
        """Cut the same window out of both."""
        height, width = min(self.height, labels.shape[0]), min(self.width, labels.shape[1])
        for _ in range(1 + _CROP_REDRAWS):
            rows, columns = self._places(labels, height, width, rng)
            top, left = int(rng.integers(*rows)), int(rng.integers(*columns))
            window = np.s_[top : top + height, left : left + width]
            if self.single_category_max_area >= 1 or self._is_varied(labels[window]):
                break
        return image[window], labels[window]

    def _places(
        self, labels: np.ndarray, height: int, width: int, rng: np.random.Generator
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return from where to where (exclusively) the window's first row and column may lie."""
        last = labels.shape[0] - height, labels.shape[1] - width
        if not (self.class_balance and rng.random() < self.class_balance):
            return (0, last[0] + 1), (0, last[1] + 1)
        classes = np.flatnonzero(np.bincount(labels[labels != IGNORE_LABEL]))
        if not len(classes):
            return (0, last[0] + 1), (0, last[1] + 1)
        pixels = np.flatnonzero(labels == rng.choice(classes))
        pixel = divmod(int(rng.choice(pixels)), labels.shape[1])
        return tuple(
            (max(place - side + 1, 0), min(place, end) + 1)
            for place, side, end in zip(pixel, (height, width), last, strict=True)
        )

    def _is_varied(self, labels: np.ndarray) -> bool:
        counts = np.bincount(labels[labels != IGNORE_LABEL])
        return np.count_nonzero(counts) > 1 and counts.max() < counts.sum() * self.single_category_max_area


@dataclass(frozen=True)
class ColourJitter:
    """Colour changes of the SSD detector: each of four with probability one half.

    Brightness comes first; contrast comes before or after saturation and hue, equally likely. The
    arithmetic is OpenCV's on 8 bits, where the circle of hues has 180 steps.

    Attributes:
        brightness: largest shift, on the 0..255 scale.
        contrast: bounds of the factor.
        saturation: bounds of the factor.
        hue: largest shift, in steps of hue.
    """

    brightness: float = 32
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18

    def __call__(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
        """Change the image's colours; the labels stay."""
        if rng.random() < 0.5:
            image = _scaled(image, 1, rng.uniform(-self.brightness, self.brightness))
        contrast_first = rng.random() < 0.5
        if contrast_first:
            image = self._change_contrast(image, rng)
        image = self._change_saturation(image, rng)
        image = self._change_hue(image, rng)
        if not contrast_first:
            image = self._change_contrast(image, rng)
        return image, labels

    def _change_contrast(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return _scaled(image, rng.uniform(*self.contrast), 0) if rng.random() < 0.5 else image

    def _change_saturation(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= 0.5:
            return image
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _scaled(hsv[..., 1], rng.uniform(*self.saturation), 0)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    def _change_hue(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= 0.5:
            return image
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        shift = int(rng.integers(-self.hue, self.hue + 1))
        hsv[..., 0] = ((np.arange(256) + shift) % 180).astype(np.uint8)[hsv[..., 0]]
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _scaled(values: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """Return values * factor + shift, clipped and truncated to uint8; by table, since there are 256 values."""
    table = np.clip(np.arange(256) * factor + shift, 0, 255).astype(np.uint8)
    return cv2.LUT(values, table)


@dataclass(frozen=True)
class RandomFlip:
    """Mirror along each of the given array axes (0: upside down, 1: left-right) with probability one half."""

    axes: tuple[int, ...]

    def __call__(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
        """Mirror both along the drawn axes."""
        axes = [axis for axis in self.axes if rng.random() < 0.5]
        return np.flip(image, axes), np.flip(labels, axes)


@dataclass(frozen=True)
class RandomQuarterTurn:
    """Turn by 0, 90, 180 or 270 degrees, equally likely."""

    def __call__(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
        """Turn both by the drawn angle."""
        turns = int(rng.integers(4))
        return np.rot90(image, turns), np.rot90(labels, turns)


@dataclass(frozen=True)
class Pad:
    """Pad on the right and at the bottom to at least ``side`` x ``side``; padded labels are ignored.

    Attributes:
        side: in pixels.
        colour: of the padding; the default is close to the pixel mean, so almost zero after normalisation.
    """

    side: int
    colour: tuple[int, ...] = (128, 128, 128)

    def __call__(self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
        """Pad both; draws nothing."""
        height, width = labels.shape
        shape = max(height, self.side), max(width, self.side)
        padded_image = np.full((*shape, 3), self.colour, np.uint8)
        padded_labels = np.full(shape, IGNORE_LABEL, np.uint8)
        padded_image[:height, :width], padded_labels[:height, :width] = image, labels
        return padded_image, padded_labels
