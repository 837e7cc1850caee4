"""Pixel-adaptive mask refinement (PAMR; Araslanov and Roth, CVPR 2020, section 3.3), as NACLIP uses it.

Scores of a pixel become the mean of its neighbours' scores, those of a like colour counting most; a few times over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.config.options import Options, option
from ovrs.inference.refine.base import Refiner, register_refiner, with_scores
from ovrs.inference.views import ScoreMap
from ovrs.scores import ScoreRule
from ovrs.structures import TowerFeatures

_SOFTNESS = 0.1  # differences are measured in tenths of the local standard deviation
_RING = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def pamr(image: Tensor, scores: Tensor, rounds: int = 10, dilations: Sequence[int] = (8, 16)) -> Tensor:
    """Smooth scores, keeping edges of the image.

    Args:
        image: [3, H, W], any affine scaling of the colours.
        scores: [T, H, W].
        rounds: how often.
        dilations: distances in pixels of the eight neighbours; every distance adds eight.

    Returns:
        [T, H, W]. A neighbour outside the image is the nearest pixel inside.
    """
    around = torch.stack(list(_neighbours(image, dilations)))  # [N, 3, H, W]
    with_centre = torch.cat([around, image[None].expand(len(dilations), -1, -1, -1)])
    spread = with_centre.std(dim=0)
    likeness = -((around - image).abs() / (_SOFTNESS * spread + 1e-8)).mean(dim=1)
    weights = likeness.softmax(dim=0)  # [N, H, W]
    for _ in range(rounds):
        smoothed = torch.zeros_like(scores)
        for weight, neighbour in zip(weights, _neighbours(scores, dilations), strict=True):
            smoothed.addcmul_(weight, neighbour)
        scores = smoothed
    return scores


def _neighbours(values: Tensor, dilations: Sequence[int]) -> list[Tensor]:
    """Return views [C, H, W] of the values one, two … ``dilations`` away in the eight directions."""
    height, width = values.shape[-2:]
    views = []
    for reach in dilations:
        padded = F.pad(values[None], [reach] * 4, mode="replicate")[0]
        for dy, dx in _RING:
            top, left = reach + dy * reach, reach + dx * reach
            views.append(padded[:, top : top + height, left : left + width])
    return views


@dataclass(frozen=True)
class PAMROptions(Options):
    """``MODEL.PAMR``."""

    rounds: int = option(10, "how often scores are averaged", minimum=0)
    dilations: tuple[int, ...] = option((8, 16), "distances of neighbours in pixels", minimum=1)


@register_refiner("pamr", PAMROptions)
class PAMR(Refiner):
    """Every image for itself, at the size at which the model sees it."""

    joint = False

    def guide(self, images: Sequence[Tensor], look: Callable[[str, Tensor], TowerFeatures]) -> Sequence[Tensor]:
        """The pixels are the guide."""
        return images

    def __call__(self, maps: Sequence[ScoreMap], guide: Sequence[Tensor], rule: ScoreRule) -> list[ScoreMap]:
        """Return scores at the images' own sizes."""
        refined = []
        for found, image in zip(maps, guide, strict=True):
            scale = tuple(full / size for full, size in zip(found.full, found.size, strict=True))  # padding included
            size = tuple(round(side * factor) for side, factor in zip(image.shape[-2:], scale, strict=True))
            scores = F.interpolate(found.scores[None], size, mode="bilinear", align_corners=False)[0]
            image = F.pad(image, (0, size[1] - image.shape[-1], 0, size[0] - image.shape[-2]))
            refined.append(with_scores(found, pamr(image, scores, self.settings.rounds, self.settings.dilations)))
        return refined
