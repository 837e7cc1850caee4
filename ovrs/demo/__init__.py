"""Generated aerial scenes with labels, and the demonstration: training on them, scores with known and unseen words."""

from ovrs.demo.canvas import CLASS_COLOURS, CLASSES, RENAMED_CLASSES, Label
from ovrs.demo.dataset import GENERATOR_VERSION, scene_rng, write_scenes
from ovrs.demo.scene import render_scene
from ovrs.demo.town import write_town
from ovrs.demo.training import DemoFailed, DemoScenes, report_of, spare_processes, train_on_scenes

__all__ = [
    "CLASSES",
    "CLASS_COLOURS",
    "GENERATOR_VERSION",
    "RENAMED_CLASSES",
    "DemoFailed",
    "DemoScenes",
    "Label",
    "render_scene",
    "report_of",
    "scene_rng",
    "spare_processes",
    "train_on_scenes",
    "write_scenes",
    "write_town",
]
