"""OVRS: open-vocabulary remote-sensing segmentation."""

import importlib
from typing import Any

__version__ = "0.2.0"

# What a user looks for, and the module that it comes from. Modules are loaded when a name is first used, so that
# `import ovrs` alone stays light.
_PUBLIC = {
    "Predictor": "ovrs.predictor",
    "Prediction": "ovrs.predictor",
    "UserError": "ovrs.errors",
    "get_cfg": "ovrs.config",
    "load_config": "ovrs.config",
    "list_heads": "ovrs.heads",
    "list_datasets": "ovrs.data",
    "list_models": "ovrs.zoo",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ovrs' has no attribute {name!r}")
