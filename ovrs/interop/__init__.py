"""Checkpoints of the original projects, read and written in their own layouts."""

from ovrs.interop.layouts import LAYOUTS, Layout, from_any_layout

__all__ = ["LAYOUTS", "Layout", "from_any_layout"]
