"""Which classes of a test set the model was trained on, and what it scores on those and on the others.

A class counts as seen if one of its words, synonyms included, is a word of the training vocabulary (compared by
:func:`ovrs.vocabulary.normalised_word`). The harmonic mean of both means is the usual figure of generalised
zero-shot segmentation: it is high only where both are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ovrs.vocabulary import normalised_word
from ovrs.vocabulary.vocabulary import SYNONYM_SEPARATOR

SEEN_FIGURES = ("seen", "unseen", "harmonic")


def mark_seen(classes: Sequence[str], training_classes: Iterable[str]) -> tuple[bool, ...]:
    """Return for each class whether training knew it.

    Args:
        classes: class strings of the test set, ``|`` between synonyms.
        training_classes: class strings of all training sets.

    Examples:
        >>> mark_seen(["building|house", "low-vegetation", "car"], ["House", "low vegetation", "cars"])
        (True, True, False)
    """
    known = {word for text in training_classes for word in _words(text)}
    return tuple(not known.isdisjoint(_words(text)) for text in classes)


def seen_and_unseen(values: Mapping[str, float], seen: Mapping[str, bool]) -> dict[str, float]:
    """Return the means over seen and unseen classes and their harmonic mean; NaN where one has no class.

    Args:
        values: {class: IoU in percent, or NaN where the class does not count}.
        seen: {class: whether training knew it}.

    Examples:
        >>> seen_and_unseen({"a": 60.0, "b": 20.0, "c": math.nan}, {"a": True, "b": False, "c": False})
        {'seen': 60.0, 'unseen': 20.0, 'harmonic': 30.0}
    """
    parts = [
        [value for name, value in values.items() if seen[name] == wanted and math.isfinite(value)]
        for wanted in (True, False)
    ]
    known, new = (sum(part) / len(part) if part else math.nan for part in parts)
    harmonic = 2 * known * new / (known + new) if known + new > 0 else (known + new)
    return dict(zip(SEEN_FIGURES, (known, new, harmonic), strict=True))


def _words(text: str) -> set[str]:
    return {normalised_word(word) for word in text.split(SYNONYM_SEPARATOR)}
