"""YAML mappings that are read strictly: every complaint names the file, the key and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ovrs.errors import DataError, nearest


class Node:
    """A YAML mapping that knows where it stands, so that every complaint names file and key."""

    def __init__(self, content: Any, file: str, key: str = "") -> None:
        self._file, self._key = file, key
        if not isinstance(content, dict):
            raise DataError(f"{self.where()}: expected 'key: value' pairs, found {_described(content)}.")
        self.content: dict = content

    def where(self, key: str = "") -> str:
        """Return "file: key.subkey"."""
        dotted = ".".join(part for part in (self._key, key) if part)
        return f"{self._file}: {dotted}" if dotted else self._file

    def allow(self, keys: str) -> None:
        """Refuse any key but the space-separated ``keys``."""
        known = keys.split()
        for key in self.content:
            if key not in known:
                raise DataError(
                    f"{self.where(str(key))} is unknown. The nearest valid key is {nearest(str(key), known)}."
                )

    def get(self, key: str, types: type | tuple[type, ...], wanted: str, *default: Any) -> Any:
        """Return a value of one of ``types``; without a default the key must be there."""
        if key not in self.content:
            if default:
                return default[0]
            raise DataError(f"{self.where(key)} is missing; give {wanted}.")
        value = self.content[key]
        # bool is an int to Python, but never meant as one here
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise DataError(f"{self.where(key)} must be {wanted}, found {_described(value)}.")
        return value

    def text(self, key: str, *default: str) -> str:
        """Return a text; without a default the key must be there."""
        return self.get(key, str, "a text", *default)

    def texts(self, key: str, *default: Sequence[str]) -> tuple[str, ...]:
        """Return a list of texts; without a default the key must be there."""
        values = self.get(key, list, "a list of texts", *default)
        for value in values:
            if not isinstance(value, str):
                raise DataError(
                    f"{self.where(key)} must be a list of texts, found {_described(value)} in it. "
                    "Write it in quotes if it is a text (YAML reads no, yes and 1 as something else)."
                )
        return tuple(values)

    def text_or_texts(self, key: str, *default: Sequence[str]) -> tuple[str, ...]:
        """Return one text or a list of texts as a tuple; without a default the key must be there."""
        if isinstance(self.content.get(key), str):
            return (self.content[key],)
        found = self.texts(key, *default)
        if not found:
            raise DataError(f"{self.where(key)} is empty; give a text, or a list of texts.")
        return found

    def child(self, key: str) -> Node:
        """Return the mapping under ``key``; empty if the key is not there."""
        return Node(self.content.get(key, {}), self._file, ".".join(part for part in (self._key, key) if part))

    def text_pairs(self) -> tuple[tuple[str, str], ...]:
        """Return the (key, value) pairs of a mapping of texts."""
        for key, value in self.content.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise DataError(f"{self.where()} must map texts to texts, found {key!r}: {value!r}; quote both.")
        return tuple(self.content.items())


def _described(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} of type {type(value).__name__}"
