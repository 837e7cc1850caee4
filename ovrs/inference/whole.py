"""Whole-image inference: every image is one view; images of one size share a pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.inference.views import ScoreMap, Size, batched


@dataclass(frozen=True)
class WholeImage:
    """Pads images to a multiple of a divisor and scores each in one piece.

    The originals of the CAT-Seg family pad to a multiple of 32 and forget to cut the padding off again, which
    stretches the result by up to a few percent. Sizes that are multiples are the same either way.

    Attributes:
        divisor: images are padded with 0 (right, bottom) to a multiple of this.
        crop_padding: whether to cut the padding off; ``False`` reproduces figures of the originals.
        batch_size: images in one pass at most.
    """

    divisor: int = 32
    crop_padding: bool = True
    batch_size: int = 8

    def views(self, images: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (image indices, [N, 3, H, W] padded images), those of one padded size together."""
        groups: dict[Size, list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(self._padded(tuple(image.shape[-2:])), []).append(index)
        for (height, width), indices in groups.items():
            for keys in batched(indices, self.batch_size):
                padded = [
                    F.pad(images[key], (0, width - images[key].shape[-1], 0, height - images[key].shape[-2]))
                    for key in keys
                ]
                yield keys, torch.stack(padded)

    def enlarged(self, keys: Sequence[int], logits: Tensor) -> Tensor:
        """Scores stay as small as the model makes them: all classes at full size may take gigabytes."""
        return logits

    def merge(
        self, own: Sequence[Size], wanted: Sequence[Size], scored: Iterable[tuple[list[int], Tensor]]
    ) -> list[ScoreMap]:
        """Return per image its scores, padding included, and the size at which the image itself has the wanted one."""
        maps: dict[int, ScoreMap] = {}
        for keys, batch in scored:
            for index, scores in zip(keys, batch, strict=True):
                size = full = wanted[index]
                if self.crop_padding:
                    padded = self._padded(own[index])
                    full = tuple(round(w * p / o) for w, p, o in zip(size, padded, own[index], strict=True))
                maps[index] = ScoreMap(scores, full, size)
        return [maps[index] for index in range(len(own))]

    def _padded(self, size: Size) -> Size:
        return tuple(side + -side % self.divisor for side in size)
