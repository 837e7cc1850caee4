"""From images of any size to views that a model sees, and from scores of views to scores of images."""

from ovrs.inference.compilation import (
    COMPILE,
    CudaGraphs,
    compile_for_inference,
    copied,
    tensors_of,
    with_tensors,
)
from ovrs.inference.copies import ShortWeights
from ovrs.inference.device import apply_precision, resolve_device
from ovrs.inference.feature_cache import FeatureCache
from ovrs.inference.sliding import SlidingWindow
from ovrs.inference.views import Plan, ScoreMap
from ovrs.inference.whole import WholeImage

__all__ = [
    "COMPILE",
    "CudaGraphs",
    "FeatureCache",
    "Plan",
    "ScoreMap",
    "ShortWeights",
    "SlidingWindow",
    "WholeImage",
    "apply_precision",
    "compile_for_inference",
    "copied",
    "resolve_device",
    "tensors_of",
    "with_tensors",
]
