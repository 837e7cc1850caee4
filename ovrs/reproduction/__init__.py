"""A paper's table, with this project's own figures beside the printed ones."""

from ovrs.reproduction.formats import FORMATS, render
from ovrs.reproduction.run import run_table
from ovrs.reproduction.table import Cell, Line, Reproduction, reproduce

__all__ = ["FORMATS", "Cell", "Line", "Reproduction", "render", "reproduce", "run_table"]
