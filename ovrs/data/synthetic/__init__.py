"""Synthetic aerial scenes with labels, for the demo and for tests that need a learnable data set."""

from ovrs.data.synthetic.canvas import CLASS_COLOURS, CLASSES, RENAMED_CLASSES, Label
from ovrs.data.synthetic.dataset import GENERATOR_VERSION, scene_rng, write_scenes
from ovrs.data.synthetic.scene import render_scene

__all__ = [
    "CLASSES",
    "CLASS_COLOURS",
    "GENERATOR_VERSION",
    "RENAMED_CLASSES",
    "Label",
    "render_scene",
    "scene_rng",
    "write_scenes",
]
