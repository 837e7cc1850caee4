"""Measuring models: size and work counted without weights, speed, memory and agreement by running them."""

from ovrs.measure.analysis import Analysis, analyze, count_parameters
from ovrs.measure.benchmark import Measurement, measure

__all__ = ["Analysis", "Measurement", "analyze", "count_parameters", "measure"]
