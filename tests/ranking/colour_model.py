"""A vision-language model whose channels are known to be worth something or nothing."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ovrs.backbones import VLM
from ovrs.structures import TowerFeatures, TowerSpec

COLOURS = {"red": (250, 20, 10), "green": (10, 240, 30), "blue": (30, 10, 250)}
INFORMATIVE = (7, 2, 5)  # of red, green and blue; the other channels follow the position, not the class
CHANNELS = 10
PATCH, SIDE = 8, 64


class ColourVLM(VLM):
    """Sees colours in three channels; the others look alike in all images, and confuse."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = TowerSpec(width=1, depth=1, patch_size=PATCH, input_size=SIDE, joint_dim=CHANNELS)
        rng = np.random.default_rng(0)
        grid = (CHANNELS, SIDE // PATCH, SIDE // PATCH)
        self.register_buffer("background", torch.from_numpy(rng.uniform(0.2, 0.9, grid)).float())
        self.register_buffer("words", torch.from_numpy(rng.uniform(0.2, 0.9, (len(COLOURS), CHANNELS))).float())
        self.passes = 0

    def encode(self, image, request):
        self.passes += 1
        dense = self.background.expand(len(image), -1, -1, -1).clone()
        dense[:, list(INFORMATIVE)] = F.avg_pool2d(image, PATCH)
        return TowerFeatures(dense)

    def encode_text(self, sentences):
        words = self.words.clone()
        words[:, list(INFORMATIVE)] = torch.eye(len(COLOURS))
        names = list(COLOURS)
        return words[[next(k for k, name in enumerate(names) if name in sentence) for sentence in sentences]]

    def image_parameters(self):
        return []

    def text_parameters(self):
        return []
