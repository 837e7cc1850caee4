"""Configuration: every key, strict and safe YAML, options that stand beside their owner."""

from ovrs.config.keys import add_ovrs_config, get_cfg, load_config
from ovrs.config.options import OPTION_GROUPS, Options, option, options_node, read_options, register_options
from ovrs.errors import ConfigError

__all__ = [
    "OPTION_GROUPS",
    "ConfigError",
    "Options",
    "add_ovrs_config",
    "get_cfg",
    "load_config",
    "option",
    "options_node",
    "read_options",
    "register_options",
]
