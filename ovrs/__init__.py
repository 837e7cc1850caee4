"""OVRS: open-vocabulary remote-sensing segmentation."""

__version__ = "0.1.0"
