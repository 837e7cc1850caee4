"""Published weights: a catalogue, fetching and checking, and the layouts of the original projects."""

from ovrs.zoo.cache import cache_folder, cached_path, is_present
from ovrs.zoo.catalogue import WeightsEntry, catalogue, entry_of, find, list_models
from ovrs.zoo.default import default_config
from ovrs.zoo.fetch import config_of, fetch, resolve
from ovrs.zoo.identify import compare, identify, shapes_of
from ovrs.zoo.layouts import LAYOUTS, Layout, from_any_layout, layout_of, split_fused_attention

__all__ = [
    "LAYOUTS",
    "Layout",
    "WeightsEntry",
    "cache_folder",
    "cached_path",
    "catalogue",
    "compare",
    "config_of",
    "default_config",
    "entry_of",
    "fetch",
    "find",
    "from_any_layout",
    "identify",
    "is_present",
    "layout_of",
    "list_models",
    "resolve",
    "shapes_of",
    "split_fused_attention",
]
