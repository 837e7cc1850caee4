"""The catalogue of published weights, towers and whole segmenters: data in ``catalogue.yaml``, read here.

The environment variable ``OVRS_ZOO`` lists further files of the same form (separated like ``PATH``), for the
models of a laboratory or a company.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ovrs.errors import WeightsError, nearest
from ovrs.plain_yaml import read_plain_yaml

CATALOGUE_VARIABLE = "OVRS_ZOO"
HUB_VARIABLE = "HF_ENDPOINT"  # the one that the hub's own client reads
_HUB = "https://huggingface.co"
_BUILT_IN = Path(__file__).with_name("catalogue.yaml")

Activation = Literal["quick_gelu", "gelu"]
Kind = Literal["tower", "segmenter", "part"]


@dataclass(frozen=True)
class WeightsEntry:
    """One published file of weights; ``catalogue.yaml`` explains the keys.

    Attributes:
        name: in the catalogue.
        kind: "tower", "segmenter" or "part" (of a model: an upsampler).
        title: one line for people.
        licence: of the weights.
        file: its name in the cache folder.
        published_as: its path at the source; "" if it is ``file``.
        url, hub, google_drive, by_hand: where it comes from, one of them; see :attr:`address`.
        gated: whether the hub hands it out to accepted accounts only.
        sha256: 64 hexadecimal digits; "" if unknown.
        size: bytes; 0 if unknown.
        format, keys: of the file, and how its tensors are called, in words.
        arch: the open_clip or timm model that a tower's file fills.
        timm: whether timm itself fetches it.
        activation: what a VLM family's own code computes.
        published_with: another activation under which published figures were measured.
        mean, std: pixel statistics of a tower's training, on the 0..1 scale.
        method, layout: whose model a segmenter is, and whose tensor names the file has.
        config: the configuration that a segmenter's weights belong to.
        row: the row of a published table that they should reproduce, ``paper.table.row``.
        figures: {column of that row: printed figure, percent}.
        note: one sentence that a user must know.
        aliases: further names.
    """

    name: str
    kind: Kind
    title: str
    licence: str
    file: str
    published_as: str = ""
    url: str = ""
    hub: str = ""
    google_drive: str = ""
    by_hand: str = ""
    gated: bool = False
    sha256: str = ""
    size: int = 0
    format: str = ""
    keys: str = ""
    arch: str = ""
    timm: bool = False
    activation: Activation | None = None
    published_with: Activation | None = None
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    method: str = ""
    layout: str = ""
    config: str = ""
    row: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where plain HTTPS gets the file without an account; "" if nothing does."""
        if self.gated:
            return ""
        if self.hub:
            endpoint = os.environ.get(HUB_VARIABLE, _HUB).rstrip("/")
            return f"{endpoint}/{self.hub}/resolve/main/{self.published_as or self.file}"
        return self.url

    @property
    def source(self) -> str:
        """Where the file comes from, for people."""
        if self.hub:
            return f"{_HUB}/{self.hub}, file {self.published_as or self.file}" + (" (gated)" if self.gated else "")
        if self.google_drive:
            return f"https://drive.google.com/file/d/{self.google_drive}/view"
        return self.url or self.by_hand

    def way_to_get(self, place: Path) -> str:
        """Return what a person does to get a file that no program may fetch.

        Args:
            place: where it must lie in the end.
        """
        if self.gated:
            page = f"{_HUB}/{self.hub}"
            start = f"log in at {page}, accept its conditions, and download {self.published_as or self.file}"
        elif self.google_drive:
            start = f"open {self.source} in a browser, confirm the page about large files, and download"
        elif self.by_hand:
            start = self.by_hand
        else:
            start = f"download {self.address}"
        return f"{start}; then put the file at {place}, or give it: ovrs models fetch {self.name} --from FILE"


def catalogue() -> Mapping[str, WeightsEntry]:
    """Return all entries by name: the package's, then those of ``$OVRS_ZOO``.

    Raises:
        WeightsError: a file of ``$OVRS_ZOO`` that cannot be used.
    """
    return _read(os.environ.get(CATALOGUE_VARIABLE, ""))


def list_models(kind: Kind | None = None) -> list[str]:
    """Return the names of the catalogue, towers first; only those of ``kind`` if it is given."""
    return [name for name, entry in catalogue().items() if kind in (None, entry.kind)]


def find(name: str) -> WeightsEntry | None:
    """Return the entry with this name or alias; ``None`` without one."""
    entries = catalogue()
    return entries.get(name) or next((entry for entry in entries.values() if name in entry.aliases), None)


def entry_of(name: str) -> WeightsEntry:
    """Return the entry with this name or alias.

    Raises:
        WeightsError: there is none; the message names the nearest.
    """
    entry = find(name)
    if entry is None:
        raise WeightsError(
            f"{name!r} is no name of the catalogue; the nearest are {nearest(name, list_models(), 3)}. "
            "'ovrs models' lists all."
        )
    return entry


_GROUPS: dict[str, Kind] = {"towers": "tower", "segmenters": "segmenter", "parts": "part"}


@lru_cache(maxsize=4)
def _read(further: str) -> dict[str, WeightsEntry]:
    entries: dict[str, WeightsEntry] = {}
    for path in (_BUILT_IN, *(Path(text).expanduser() for text in further.split(os.pathsep) if text)):
        content = read_plain_yaml(path, "catalogue", WeightsError) or {}
        for group, kind in _GROUPS.items():
            for name, values in (content.pop(group, None) or {}).items():
                if name in entries:
                    raise WeightsError(f"{path}: {group}.{name}: the name is taken already; choose another.")
                entries[name] = _entry(f"{path}: {group}.{name}", name, kind, values)
        if content:
            raise WeightsError(f"{path}: {', '.join(content)}: unknown; a catalogue has {', '.join(_GROUPS)}.")
    return entries


_KEYS = {item.name for item in fields(WeightsEntry)} - {"name", "kind"}


def _entry(where: str, name: str, kind: Kind, values: Any) -> WeightsEntry:
    if not isinstance(values, dict):
        raise WeightsError(f"{where}: expected 'key: value' pairs, found {values!r}.")
    for key in values:
        if key not in _KEYS:
            raise WeightsError(f"{where}.{key} is unknown; the nearest key is {nearest(str(key), _KEYS)}.")
    if missing := [key for key in ("title", "licence", "file") if not values.get(key)]:
        raise WeightsError(f"{where} lacks {', '.join(missing)}.")
    lists = {key: tuple(values[key]) for key in ("mean", "std", "aliases") if key in values}
    return WeightsEntry(name=name, kind=kind, **{**values, **lists})
