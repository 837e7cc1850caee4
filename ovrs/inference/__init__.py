"""From images of any size to views that a model sees, and from scores of views to scores of images."""

from ovrs.inference.device import apply_precision, resolve_device
from ovrs.inference.sliding import SlidingWindow
from ovrs.inference.views import Plan, ScoreMap
from ovrs.inference.whole import WholeImage

__all__ = ["Plan", "ScoreMap", "SlidingWindow", "WholeImage", "apply_precision", "resolve_device"]
