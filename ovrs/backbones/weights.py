"""What the catalogue of weights knows about towers: which architecture a file fills, and which activation it needs.

OpenAI's CLIP computes QuickGELU, and the same weights under exact GELU run without an error and give worse features.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from ovrs.errors import WeightsError, choose
from ovrs.zoo import WeightsEntry, catalogue, find
from ovrs.zoo.catalogue import Activation


def find_entry(name: str, arch: str, key: str) -> WeightsEntry | None:
    """Return the catalogue entry of ``name``, or of the file that it is the path of; ``None`` without one.

    Paths of CLIPs count by file name, unless the file is called like its architecture, as any file may be.

    Args:
        name: value of ``WEIGHTS``.
        arch: value of ``ARCH``.
        key: configuration group, such as ``MODEL.VLM``, for messages.

    Raises:
        WeightsError: the entry is made for another architecture than ``arch``.
    """
    entry = find(name) or next((entry for entry in catalogue().values() if _is_called(entry, Path(name).name)), None)
    if entry is not None and entry.arch != arch:
        raise WeightsError(
            f"{key}.WEIGHTS {name!r} fits {key}.ARCH {entry.arch!r}, but {arch!r} is configured; change one of them."
        )
    return entry


def _is_called(entry: WeightsEntry, file: str) -> bool:
    return entry.file == file and entry.activation is not None and not file.startswith(entry.arch)


def choose_activation(
    configured: str, weights: str, entry: WeightsEntry | None, default: Activation, key: str = "MODEL.VLM"
) -> Activation:
    """Decide between QuickGELU and exact GELU, or refuse to guess.

    Args:
        configured: ``ACTIVATION`` of ``key``.
        weights: ``WEIGHTS`` of ``key``.
        entry: its catalogue entry, if it has one.
        default: what the architecture's own configuration says; used for random weights.
        key: configuration group, ``MODEL.VLM`` or ``MODEL.COMPANION``, for messages.

    Raises:
        ConfigError: an unknown activation.
        WeightsError: the configuration contradicts the catalogue (which may know two, see ``published_with``), or
            a local file comes without a word about its activation.
    """
    if configured:
        choose(f"{key}.ACTIVATION", configured, get_args(Activation))
    if entry is not None and entry.activation is not None:
        if configured not in ("", entry.activation, entry.published_with):
            raise WeightsError(
                f"{key}.ACTIVATION is {configured!r}, but {weights!r} was trained with {entry.activation!r}; "
                "leave the key empty."
            )
        return configured or entry.activation
    if configured:
        return configured
    if weights:
        raise WeightsError(
            f"{key}.WEIGHTS {weights!r} is not in the catalogue, so its activation is unknown: set "
            f"{key}.ACTIVATION to 'quick_gelu' (OpenAI's CLIP and what was fine-tuned from it) or 'gelu'."
        )
    return default
