"""OVRS: open-vocabulary remote-sensing segmentation."""

from typing import Any

__version__ = "0.1.0"

__all__ = ["Prediction", "Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the public API when it is first used: `import ovrs` alone stays light."""
    if name in ("Predictor", "Prediction"):
        from ovrs import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module 'ovrs' has no attribute {name!r}")
