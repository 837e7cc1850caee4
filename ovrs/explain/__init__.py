"""Looking inside: what a head computes on its way to the scores, recorded and drawn; models side by side."""

from ovrs.explain.drawing import draw, draw_streams
from ovrs.explain.models import compare_models
from ovrs.explain.recorder import Explainer, Explanation
from ovrs.explain.views import View, widest_view

__all__ = ["Explainer", "Explanation", "View", "compare_models", "draw", "draw_streams", "widest_view"]
