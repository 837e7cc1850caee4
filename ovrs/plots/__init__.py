"""Plots of what was measured: IoU of every class, and how training went.

Results that were measured under different protocols are not drawn side by side unless that is asked for, and then the
differences stand below the plot.
"""

from ovrs.plots.classes import draw_classes
from ovrs.plots.curves import Run, draw_curves
from ovrs.plots.sources import Measured, find_results

__all__ = ["Measured", "Run", "draw_classes", "draw_curves", "find_results"]
