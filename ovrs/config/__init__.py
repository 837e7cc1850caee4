"""Configuration: every key, strict and safe YAML, options that stand beside their owner, tables of papers."""

from ovrs.config.imports import import_modules
from ovrs.config.keys import add_ovrs_config, get_cfg
from ovrs.config.loader import load_config
from ovrs.config.options import OPTION_GROUPS, Options, option, options_node, read_options, register_options
from ovrs.config.papers import list_papers, load_paper
from ovrs.errors import ConfigError

__all__ = [
    "OPTION_GROUPS",
    "ConfigError",
    "Options",
    "add_ovrs_config",
    "get_cfg",
    "import_modules",
    "list_papers",
    "load_config",
    "load_paper",
    "option",
    "options_node",
    "read_options",
    "register_options",
]
