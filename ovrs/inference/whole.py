"""Whole-image inference: one pass per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor


def whole_image_scores(
    images: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    classify: Callable[[Tensor], Tensor],
    divisor: int,
    crop_padding: bool = True,
) -> list[tuple[Tensor, tuple[int, int]]]:
    """Score normalised images in one pass each (gsnet spec, section 7.3; dr_seg spec, section 8).

    The originals pad images to a multiple of 32 and forget to cut the padding off again, which stretches the result
    by up to a few percent. Sizes that are multiples are the same either way.

    Args:
        images: normalised [3, h, w] tensors.
        sizes: (height, width) wanted per image.
        classify: maps one [1, 3, H, W] padded image to scores [1, T, h', w'].
        divisor: images are padded with 0 (right, bottom) to a multiple of this.
        crop_padding: whether to cut the padding off; ``False`` reproduces figures of the originals.

    Returns:
        Per image the scores [T, h', w'], padding included, as ``classify`` gave them, and the (height, width) that
        the padded image has where the image itself has the wanted size. Enlarged to that, the first ``height`` rows
        and ``width`` columns are the result. The caller does so a few classes at a time: all classes at full size
        may take gigabytes.
    """
    results = []
    for image, (height, width) in zip(images, sizes, strict=True):
        own_height, own_width = image.shape[-2:]
        padded = F.pad(image, (0, -own_width % divisor, 0, -own_height % divisor))
        if not crop_padding:
            results.append((classify(padded[None])[0], (height, width)))
            continue
        full = (
            round(height * padded.shape[-2] / own_height),
            round(width * padded.shape[-1] / own_width),
        )
        results.append((classify(padded[None])[0], full))
    return results
