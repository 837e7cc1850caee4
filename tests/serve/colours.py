"""A model that tells colours apart, so that every answer about a scene is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from affine import Affine

from ovrs import Predictor
from ovrs.backbones import VLM
from ovrs.config import get_cfg
from ovrs.heads import Head
from ovrs.inference import SlidingWindow
from ovrs.losses import build_loss
from ovrs.scores import ScoreRule
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.structures import TowerFeatures, TowerRequest, TowerSpec
from ovrs.vocabulary import TextBank

COLOURS = {
    "building": (200, 60, 40),
    "road": (128, 128, 128),
    "tree": (20, 130, 30),
    "forest": (20, 130, 30),
    "water": (20, 60, 200),
    "lake": (20, 60, 200),
    "sand": (230, 190, 60),
}
KERNEL = 64
UTM = Affine(0.5, 0, 346000, 0, -0.5, 5648000)


class ColourVLM(VLM):
    """Sees the colour of every pixel, and knows the colours of some words."""

    dense_forms = ("final_norm", "none")

    def __init__(self) -> None:
        super().__init__()
        self.spec = TowerSpec(width=3, depth=1, patch_size=1, input_size=KERNEL, joint_dim=3)
        self.passes = 0

    def encode(self, image, request):
        self.passes += len(image)
        return TowerFeatures(image)

    def encode_text(self, sentences):
        known = [next((c for word, c in COLOURS.items() if word in text), (255, 0, 255)) for text in sentences]
        return torch.tensor(known).float()

    def image_parameters(self):
        return []

    def text_parameters(self):
        return []


class NearestColour(Head):
    """Scores a class by the cosine of its colour and a pixel's."""

    rule = ScoreRule(activation="softmax", scale=60.0)

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def requests(self):
        return {"vlm": TowerRequest()}

    def forward(self, features, text):
        self.passes += len(features["vlm"].dense)
        return torch.einsum("bchw,tc->bthw", F.normalize(features["vlm"].dense, dim=1), text.mean)


def colour_predictor() -> Predictor:
    """The public API around the colour model."""
    predictor = Predictor.__new__(Predictor)
    predictor.cfg = get_cfg()
    predictor.cfg.MODEL.DEVICE = "cpu"
    predictor.cfg.TEST.SLIDING_WINDOW.KERNEL = KERNEL
    predictor.weights_sha256 = ""
    predictor.model = OpenVocabSegmenter(
        towers={"vlm": ColourVLM()},
        head=NearestColour(),
        criterion=build_loss("ce", "exclude", "valid_pixels"),
        text_bank=TextBank(),
        templates=["{}"],
        plan=SlidingWindow(0, KERNEL, global_view=False),
        pixel_mean=[0, 0, 0],
        pixel_std=[1, 1, 1],
    ).eval()
    return predictor


def draw_scene(height: int = 100, width: int = 140) -> tuple[np.ndarray, list[str]]:
    """uint8 [height, width] of indices, and the words they stand for: a lake, a road, houses, the rest forest."""
    truth = np.full((height, width), 1, np.uint8)
    truth[:, width // 2 : width // 2 + 8] = 3
    rows, columns = np.ogrid[:height, :width]
    truth[(rows - height * 0.6) ** 2 + (columns - width * 0.25) ** 2 < (height * 0.22) ** 2] = 0
    for top in range(8, height - 16, 28):
        truth[top : top + 14, width - 40 : width - 20] = 2
    return truth, ["water", "tree", "building", "road"]


def write_scene(path: Path, truth: np.ndarray, words: list[str], **profile) -> Path:
    """Write the picture of labels as a GeoTIFF in UTM."""
    picture = np.array([COLOURS[word] for word in words], np.uint8)[truth].transpose(2, 0, 1)
    profile = {"driver": "GTiff", "crs": "EPSG:25832", "transform": UTM, "photometric": "RGB", **profile}
    height, width = truth.shape
    with rasterio.open(path, "w", dtype="uint8", count=3, height=height, width=width, **profile) as dataset:
        dataset.write(picture)
    return path
