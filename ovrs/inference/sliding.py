"""Sliding-window inference: the published protocol, and native-resolution tiling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.errors import ConfigError
from ovrs.inference.views import ScoreMap, Size, batched

Key = tuple[int, tuple[int, int] | None]  # image index, and top left corner; no corner: a global view


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
    """

    canvas: int = 640
    kernel: int = 384
    overlap: float = 0.333
    global_view: bool = True
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ConfigError(f"TEST.SLIDING_WINDOW.OVERLAP must be in [0, 1), got {self.overlap}.")
        if self.kernel < 1 or self.batch_size < 1:
            raise ConfigError("TEST.SLIDING_WINDOW.KERNEL and BATCH_SIZE must be at least 1.")
        if 0 < self.canvas < self.kernel:
            raise ConfigError(
                f"TEST.SLIDING_WINDOW.CANVAS ({self.canvas}) must be 0 or at least KERNEL ({self.kernel})."
            )

    def views(self, images: Sequence[Tensor]) -> Iterator[tuple[list[Key], Tensor]]:
        """Yield (keys, [N, 3, kernel, kernel] windows) of normalised [3, h, w] images of any sizes."""
        for batch in batched(self._windows(images), self.batch_size):
            keys, windows = zip(*batch, strict=True)
            yield list(keys), torch.stack(windows)

    def enlarged(self, logits: Tensor) -> Tensor:
        """Bring [N, T, h, w] logits to the size of a window."""
        return _resize(logits, self.kernel)

    def merge(
        self, own: Sequence[Size], wanted: Sequence[Size], scored: Iterable[tuple[list[Key], Tensor]]
    ) -> list[ScoreMap]:
        """Average windows, then windows and global view; on the canvas, or at the image's size for ``canvas`` 0."""
        sums: dict[int, Tensor] = {}
        counts: dict[int, Tensor] = {}
        views: dict[int, Tensor] = {}
        for keys, batch in scored:
            for (index, corner), scores in zip(keys, batch, strict=True):
                if corner is None:
                    views[index] = scores
                    continue
                if index not in sums:
                    sums[index] = scores.new_zeros(len(scores), *self._canvas(own[index]))
                    counts[index] = scores.new_zeros(self._canvas(own[index]))
                top, left = corner
                area = (slice(top, top + self.kernel), slice(left, left + self.kernel))
                sums[index][(slice(None), *area)] += scores
                counts[index][area] += 1

        maps = []
        for index, (size, target) in enumerate(zip(own, wanted, strict=True)):
            scores = sums.pop(index).div_(counts.pop(index))
            if not self.canvas:  # small images were padded to one window; their view was not
                scores = scores[:, : size[0], : size[1]]
            if index in views:
                whole = views.pop(index)[None]
                whole = F.interpolate(whole, size=scores.shape[-2:], mode="bilinear", align_corners=False)[0]
                scores = scores.add_(whole).div_(2)
            maps.append(ScoreMap(scores, target, target))
        return maps

    def _canvas(self, size: Size) -> Size:
        if self.canvas:
            return self.canvas, self.canvas
        return max(size[0], self.kernel), max(size[1], self.kernel)

    def _windows(self, images: Sequence[Tensor]) -> Iterator[tuple[Key, Tensor]]:
        for index, image in enumerate(images):
            height, width = self._canvas(tuple(image.shape[-2:]))
            if self.canvas:
                canvas = _resize(image[None], self.canvas)[0]
            else:
                canvas = F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
            for top in self.starts(height):
                for left in self.starts(width):
                    yield (index, (top, left)), canvas[:, top : top + self.kernel, left : left + self.kernel]
            if self.global_view:
                yield (index, None), _resize(image[None], self.kernel)[0]

    def starts(self, side: int) -> list[int]:
        """Return the first pixel of every window along a side; the last window is shifted inwards."""
        stride = max(int(self.kernel * (1 - self.overlap)), 1)
        last = side - self.kernel
        return [*range(0, last, stride), last]


def _resize(images: Tensor, side: int) -> Tensor:
    """Squash [N, C, h, w] to a square, bilinear without antialiasing."""
    if tuple(images.shape[-2:]) == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
