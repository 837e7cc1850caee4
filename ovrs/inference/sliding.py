"""Sliding-window inference: the published protocol, and native-resolution tiling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SlidingWindow:
    """Cuts images into overlapping windows, scores them in batches and averages the scores.

    With the defaults this is the protocol of CAT-Seg and GSNet (gsnet spec, section 7.2): the image is
    squashed to a 640 square, cut into four 384 windows, and the average over the windows is averaged
    with one view of the whole image at 384.

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
            raise ValueError(f"TEST.SLIDING_WINDOW.OVERLAP must be in [0, 1), got {self.overlap}.")
        if self.kernel < 1 or self.batch_size < 1:
            raise ValueError("TEST.SLIDING_WINDOW.KERNEL and BATCH_SIZE must be at least 1.")
        if 0 < self.canvas < self.kernel:
            raise ValueError(
                f"TEST.SLIDING_WINDOW.CANVAS ({self.canvas}) must be 0 or at least KERNEL ({self.kernel})."
            )

    def __call__(self, images: Sequence[Tensor], classify: Classify) -> list[Tensor]:
        """Score images.

        Args:
            images: float [3, h, w] tensors, any sizes.
            classify: maps [N, 3, kernel, kernel] windows to scores [N, T, kernel, kernel].

        Returns:
            Per image the scores [T, H, W], on the canvas, or at the image's size for ``canvas`` 0.
        """
        prepared = [self._prepare(image) for image in images]
        sums: list[Tensor | None] = [None] * len(images)
        counts = [image.new_zeros(image.shape[-2:]) for image in prepared]
        views: list[Tensor | None] = [None] * len(images)
        for keys, windows in self._batches(images, prepared):
            for (index, corner), scores in zip(keys, classify(windows), strict=True):
                if corner is None:
                    views[index] = scores
                    continue
                if sums[index] is None:
                    sums[index] = scores.new_zeros(len(scores), *prepared[index].shape[-2:])
                top, left = corner
                area = (slice(top, top + self.kernel), slice(left, left + self.kernel))
                sums[index][(slice(None), *area)] += scores
                counts[index][area] += 1

        results = []
        for image, total, count, view in zip(images, sums, counts, views, strict=True):
            scores = total.div_(count)
            if not self.canvas:  # small images were padded to one window; their view was not
                scores = scores[:, : image.shape[-2], : image.shape[-1]]
            if view is not None:
                whole = F.interpolate(view[None], size=scores.shape[-2:], mode="bilinear", align_corners=False)[0]
                scores = scores.add_(whole).div_(2)
            results.append(scores)
        return results

    def _prepare(self, image: Tensor) -> Tensor:
        if self.canvas:
            return _resize(image, self.canvas)
        height, width = image.shape[-2:]
        return F.pad(image, (0, max(self.kernel - width, 0), 0, max(self.kernel - height, 0)))

    def _windows(
        self, images: Sequence[Tensor], prepared: Sequence[Tensor]
    ) -> Iterator[tuple[tuple[int, tuple[int, int] | None], Tensor]]:
        """Yield ((image index, top-left corner), window); the corner of a global view is ``None``."""
        for index, (image, canvas) in enumerate(zip(images, prepared, strict=True)):
            for top in self.starts(canvas.shape[-2]):
                for left in self.starts(canvas.shape[-1]):
                    yield (index, (top, left)), canvas[:, top : top + self.kernel, left : left + self.kernel]
            if self.global_view:
                yield (index, None), _resize(image, self.kernel)

    def _batches(
        self, images: Sequence[Tensor], prepared: Sequence[Tensor]
    ) -> Iterator[tuple[list[tuple[int, tuple[int, int] | None]], Tensor]]:
        keys, windows = [], []
        for key, window in self._windows(images, prepared):
            keys.append(key)
            windows.append(window)
            if len(windows) == self.batch_size:
                yield keys, torch.stack(windows)
                keys, windows = [], []
        if windows:
            yield keys, torch.stack(windows)

    def starts(self, side: int) -> list[int]:
        """Return the first pixel of every window along a side; the last window is shifted inwards."""
        stride = max(int(self.kernel * (1 - self.overlap)), 1)
        last = side - self.kernel
        return [*range(0, last, stride), last]


def _resize(image: Tensor, side: int) -> Tensor:
    """Squash [3, h, w] to a square, bilinear without antialiasing."""
    return F.interpolate(image[None], size=(side, side), mode="bilinear", align_corners=False)[0]
