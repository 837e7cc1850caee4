"""Layers shared by heads."""
