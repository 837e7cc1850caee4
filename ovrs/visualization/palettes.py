"""Colours of classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle

import cv2
import numpy as np
from numpy.typing import NDArray

from ovrs.errors import ConfigError, nearest

IGNORED_COLOUR = (0, 0, 0)

# Okabe and Ito's colours, which people with any kind of colour vision tell apart, without black
# (which stands for ignored pixels) and with a grey in its place.
_FIRST = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (153, 153, 153),
)
_LEVELS = 16  # per channel, of the colours to choose from
_MOST = _LEVELS**3
_WHITE = (255, 255, 255)
_ALIKE = 20.0  # distance in CIE Lab under which two colours are taken for one
_SAME = 3.0  # likewise, under which nobody sees a difference

# Colours that people expect of common land cover, by the last word of a class's name.
_EXPECTED = {
    (0, 114, 178): "water river lake sea ocean pond reservoir canal stream",
    (0, 100, 60): "tree forest wood woodland mangrove",
    (128, 200, 110): "grass grassland meadow lawn vegetation pasture",
    (240, 228, 66): "cropland crop farmland field agriculture",
    (213, 94, 0): "building house roof dwelling",
    (130, 130, 130): "road street highway pavement",
    (190, 150, 110): "soil ground bareland barren",
    (235, 215, 160): "sand beach desert",
    (204, 121, 167): "car vehicle truck bus",
    (86, 180, 233): "pool",
    (235, 250, 255): "snow ice glacier",
}
_BY_WORD = {word: colour for colour, words in _EXPECTED.items() for word in words.split()}


def palette(n: int) -> NDArray[np.uint8]:
    """Return ``n`` distinct colours.

    The same index has the same colour whatever ``n`` is. The first eight are safe for colour-blind
    people; each later one is the colour that looks least like all before it (farthest in CIE Lab).

    Args:
        n: number of colours, 0 to 4096.

    Returns:
        [n, 3] RGB.

    Raises:
        ValueError: ``n`` is out of range.
    """
    if not 0 <= n <= _MOST:
        raise ValueError(f"n is {n}; a palette has 0 to {_MOST} colours.")
    levels = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    candidates_lab = _lab(candidates)
    colours = list(_FIRST)
    distance = np.full(len(candidates), np.inf)
    for seen in _lab(np.array([IGNORED_COLOUR, _WHITE, *_FIRST], np.uint8)):
        distance = np.minimum(distance, np.linalg.norm(candidates_lab - seen, axis=1))
    while len(colours) < n:
        best = int(distance.argmax())
        colours.append(tuple(candidates[best].tolist()))
        distance = np.minimum(distance, np.linalg.norm(candidates_lab - candidates_lab[best], axis=1))
    return np.array(colours[:n], np.uint8).reshape(n, 3)


def class_colours(names: Sequence[str], chosen: Mapping[str, str] | None = None) -> NDArray[np.uint8]:
    """Return a colour for every class: the chosen one, else the one that its name suggests, else one that is free.

    Water is blue and a forest dark green, whatever their place in the list.

    Args:
        names: the classes.
        chosen: {name: "#rrggbb"} of some of them.

    Returns:
        [T, 3] RGB.

    Raises:
        ConfigError: a colour that cannot be read, or a name that is not in the list.

    Examples:
        >>> class_colours(["water", "my thing"], {"my thing": "#ff0000"}).tolist()
        [[0, 114, 178], [255, 0, 0]]
    """
    given = {name: _read_colour(name, text) for name, text in (chosen or {}).items()}
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(
            f"a colour is given for {unknown[0]!r}, which is no class; did you mean {nearest(unknown[0], names)}?"
        )
    taken = [_WHITE, IGNORED_COLOUR, *given.values()]
    for name in names:
        expected = _BY_WORD.get(_head_word(name))
        if name not in given and expected is not None and _distance(expected, taken) >= _ALIKE:
            given[name] = expected
            taken.append(expected)
    free = (c for c in cycle(palette(min(2 * len(names) + 64, _MOST)).tolist()) if _distance(c, taken) >= _ALIKE)
    return np.array([given.get(name) or next(free) for name in names], np.uint8).reshape(len(names), 3)


def tell_apart(colours: Sequence[Sequence[int]]) -> bool:
    """Return whether people see a difference between any two of some RGB colours."""
    return all(_distance(colour, colours[:place]) >= _SAME for place, colour in enumerate(colours) if place)


def _read_colour(name: str, text: str) -> tuple[int, ...]:
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise ConfigError(f"the colour of {name!r} must look like #1e90ff, got {text!r}.")
    return tuple(bytes.fromhex(text[1:]))


def _head_word(name: str) -> str:
    """The noun of a name such as "bare soil" or "Roads"."""
    word = re.split(r"[\s_-]+", name.strip().lower())[-1]
    return word if word in _BY_WORD else word.removesuffix("s")


def _distance(colour: Sequence[int], others: Sequence[Sequence[int]]) -> float:
    lab = _lab(np.array([colour, *others], np.uint8))
    return float(np.linalg.norm(lab[1:] - lab[0], axis=1).min())


def _lab(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, 3] RGB as CIE Lab, where distances are about as large as they look."""
    return cv2.cvtColor(colours[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
