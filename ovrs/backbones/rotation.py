"""Dense features of an image under all four quarter turns (the rotation branch of RSKT-Seg and DR-Seg)."""

from __future__ import annotations

import torch
from torch import Tensor

from ovrs.backbones.base import VLM
from ovrs.structures import ROTATIONS, FeatureRequest, ImageFeatures


def encode_rotations(vlm: VLM, image: Tensor, request: FeatureRequest) -> ImageFeatures:
    """Encode images as they are and turned by 90, 180 and 270 degrees (counter-clockwise).

    Square images make one batch of all turns; others one per orientation. The features are turned back, so that
    all four describe the same cell; block outputs are those of the image as it is.

    Args:
        vlm: any vision-language model.
        image: [B, 3, H, W], normalised.
        request: what the head asks for.
    """
    count, square = len(image), image.shape[-2] == image.shape[-1]
    groups = [tuple(range(ROTATIONS))] if square else [(0, 2), (1, 3)]
    dense, blocks = {}, {}
    for turns in groups:
        batch = torch.cat([image.rot90(turn, (2, 3)) for turn in turns])
        features = vlm.encode_image(batch, request)
        for turn, part in zip(turns, features.dense.split(count), strict=True):
            dense[turn] = part.rot90(-turn, (2, 3))
        if turns[0] == 0:
            blocks = {index: block[:count] for index, block in features.blocks.items()}
    rotated = torch.stack([dense[turn] for turn in range(ROTATIONS)], dim=1)
    return ImageFeatures(dense=rotated[:, 0], blocks=blocks, rotated=rotated)
