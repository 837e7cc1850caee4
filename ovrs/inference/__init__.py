"""From images of any size to scores per class, window by window, and from scores to a label map."""

from ovrs.inference.device import apply_precision, resolve_device
from ovrs.inference.labels import label_map
from ovrs.inference.sliding import SlidingWindow
from ovrs.inference.whole import whole_image_scores

__all__ = ["SlidingWindow", "apply_precision", "label_map", "resolve_device", "whole_image_scores"]
