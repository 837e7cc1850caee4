"""Sliding-window inference: the published protocol, and native-resolution tiling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.errors import ConfigError
from ovrs.inference.views import ScoreMap, Size, batched


class Window(NamedTuple):
    """Where a view comes from: the image's index, the top left corner on its canvas, and its size.

    A view without corner shows the whole image.
    """

    image: int
    corner: tuple[int, int] | None
    size: Size


@dataclass(frozen=True)
class SlidingWindow:
    """Cuts images into overlapping windows, scores them in batches and averages the scores.

    With the defaults this is the protocol of CAT-Seg and GSNet: the image is squashed to a 640 square, cut into four
    384 windows, and the average over the windows is averaged with one view of the whole image at 384.

    Attributes:
        canvas: side of the square that images are squashed to; 0 keeps their size.
        kernel: side of a window in pixels.
        overlap: fraction of the kernel that neighbours share, 0 <= overlap < 1.
        global_view: whether one view of the whole image has half of the total weight.
        batch_size: windows, of one or many images, in one pass.
        fit: what becomes of images (without ``canvas``) that are smaller than a window. 0: they are padded to one,
            right and bottom. Otherwise the window shrinks to the image, and both are padded evenly on all sides to a
            multiple of this, as training-free methods do.
    """

    canvas: int = 640
    kernel: int = 384
    overlap: float = 0.333
    global_view: bool = True
    batch_size: int = 8
    fit: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"TEST.SLIDING_WINDOW.OVERLAP must be in [0, 1), got {self.overlap}.")
        if self.kernel < 1 or self.batch_size < 1:
            raise ConfigError("TEST.SLIDING_WINDOW.KERNEL and BATCH_SIZE must be at least 1.")
        if 0 < self.canvas < self.kernel:
            raise ConfigError(
                f"TEST.SLIDING_WINDOW.CANVAS ({self.canvas}) must be 0 or at least KERNEL ({self.kernel})."
            )

    def views(self, images: Sequence[Tensor]) -> Iterator[tuple[list[Window], Tensor]]:
        """Yield (windows, their pixels [N, 3, height, width]) of normalised [3, h, w] images of any sizes."""
        for _, alike in groupby(self._windows(images), key=lambda item: item[0].size):
            for batch in batched(alike, self.batch_size):
                keys, pixels = zip(*batch, strict=True)
                yield list(keys), torch.stack(pixels)

    def enlarged(self, keys: Sequence[Window], logits: Tensor) -> Tensor:
        """Bring [N, T, h, w] logits to the size of their windows."""
        return _resize(logits, keys[0].size)

    def merge(
        self, own: Sequence[Size], wanted: Sequence[Size], scored: Iterable[tuple[list[Window], Tensor]]
    ) -> list[ScoreMap]:
        """Average windows, then windows and global view; on the canvas, or at the image's size for ``canvas`` 0."""
        sums: dict[int, Tensor] = {}
        counts: dict[int, Tensor] = {}
        views: dict[int, Tensor] = {}
        for keys, batch in scored:
            for (index, corner, (height, width)), scores in zip(keys, batch, strict=True):
                if corner is None:
                    views[index] = scores
                    continue
                if index not in sums:
                    sums[index] = scores.new_zeros(len(scores), *self._canvas(own[index]))
                    counts[index] = scores.new_zeros(self._canvas(own[index]))
                top, left = corner
                area = (slice(top, top + height), slice(left, left + width))
                sums[index][(slice(None), *area)] += scores
                counts[index][area] += 1

        maps = []
        for index, (size, target) in enumerate(zip(own, wanted, strict=True)):
            scores = sums.pop(index).div_(counts.pop(index))
            if not self.canvas:  # small images were padded; their view was not
                left, _, top, _ = self._padding(size)
                scores = scores[:, top : top + size[0], left : left + size[1]]
            if index in views:
                whole = _resize(views.pop(index)[None], tuple(scores.shape[-2:]))[0]
                scores = scores.add_(whole).div_(2)
            maps.append(ScoreMap(scores, target, target))
        return maps

    def _canvas(self, size: Size) -> Size:
        if self.canvas:
            return self.canvas, self.canvas
        return tuple(
            side if side >= self.kernel else side + -side % self.fit if self.fit else self.kernel for side in size
        )

    def _padding(self, size: Size) -> tuple[int, int, int, int]:
        """Return the pixels left, right, above and below an image."""
        height, width = (canvas - side for canvas, side in zip(self._canvas(size), size, strict=True))
        top, left = (height // 2, width // 2) if self.fit else (0, 0)
        return left, width - left, top, height - top

    def _windows(self, images: Sequence[Tensor]) -> Iterator[tuple[Window, Tensor]]:
        square = (self.kernel, self.kernel)
        for index, image in enumerate(images):
            size = tuple(image.shape[-2:])
            height, width = self._canvas(size)
            canvas = _resize(image[None], (height, width))[0] if self.canvas else F.pad(image, self._padding(size))
            shape = min(height, self.kernel), min(width, self.kernel)
            for top in self.starts(height):
                for left in self.starts(width):
                    pixels = canvas[:, top : top + shape[0], left : left + shape[1]]
                    yield Window(index, (top, left), shape), pixels
            if self.global_view:
                yield Window(index, None, square), _resize(image[None], square)[0]

    def starts(self, side: int) -> list[int]:
        """Return the first pixel of every window along a side; the last window is shifted inwards."""
        stride = max(int(self.kernel * (1 - self.overlap)), 1)
        last = max(side - self.kernel, 0)
        return [*range(0, last, stride), last]


def _resize(images: Tensor, size: Size) -> Tensor:
    """Bring [N, C, h, w] to (height, width), the proportions regardless; bilinear without antialiasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
