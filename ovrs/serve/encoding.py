"""Encode every window once, however many vocabularies it is asked about."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable

from torch import Tensor

from ovrs.predictor import Predictor
from ovrs.segmenter import Features


def encoding_once(predictor: Predictor, memory: int) -> Predictor:
    """Return a predictor with the same weights that remembers what the towers said.

    Args:
        predictor: stays as it is.
        memory: bytes that features may take; windows that do not fit are encoded each time.
    """
    remembering, model = copy.copy(predictor), copy.copy(predictor.model)
    model.embed = _remembered(predictor.model.embed, memory)
    remembering.model = model
    return remembering


def _remembered(embed: Callable[[Tensor], Features], memory: int) -> Callable[[Tensor], Features]:
    known: dict[bytes, Features] = {}
    left = memory

    def remembered(images: Tensor) -> Features:
        nonlocal left
        key = hashlib.blake2b(images.cpu().numpy().tobytes()).digest()
        if key not in known:
            features = embed(images)
            left -= sum(size_of(features))
            if left < 0:
                return features
            known[key] = features
        return known[key]

    return remembered


def size_of(features: Features) -> list[int]:
    """Return the bytes of every tensor of features."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    for tower in features.values():
        tower.map(note)
    return sizes
