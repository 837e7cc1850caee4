"""From the labels that authors distribute to the ids that a card stores, by the facts of the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovrs.data.card import DatasetCard
from ovrs.data.encodings import IdEncoding
from ovrs.data.rasters import Raster, open_labels
from ovrs.errors import DataError, nearest, shortened
from ovrs.preparation.sources import Member
from ovrs.structures import IGNORE_LABEL

_ROWS = 1024  # decoded at a time: bounds the memory that the largest tiles need
_RED, _GREEN = 1 << 16, 1 << 8


@dataclass(frozen=True)
class OriginalLabels:
    """How the authors code labels, and what is stored instead.

    Attributes:
        table: pairs (original value, stored id), sorted; a colour's value is ``0xRRGGBB``.
        colours: whether the originals are RGB.
        threshold: where given, every channel becomes 255 from this value on and 0 below it, before the lookup.
    """

    table: tuple[tuple[int, int], ...]
    colours: bool
    threshold: int | None = None

    @classmethod
    def of_card(cls, card: DatasetCard) -> OriginalLabels:
        """Read ``source.source_colours`` (colour: class or null) or ``source.original_to_index`` (id: index or 255).

        ``source.colour_threshold`` goes with colours. Ignored pixels get :func:`ignored_id`.

        Raises:
            DataError: the card has neither, or names what it does not list.
        """
        stored = {index: value for value, index in _id_table(card)}
        stored[IGNORE_LABEL] = ignored_id(card)
        mapping: dict[Any, int] = {}
        facts = card.source.get("source_colours")
        key = "source_colours"
        if facts is not None:
            names = [text.partition("|")[0].strip() for text in card.classes]
            for colour, name in facts.items():
                if name is not None and name not in names:
                    raise DataError(
                        f"{card.path}: source.source_colours: {name!r} is not among the classes; "
                        f"the nearest is {nearest(str(name), names)!r}."
                    )
                mapping[colour] = stored.get(IGNORE_LABEL if name is None else names.index(name), -1)
        else:
            key = "original_to_index"
            facts = card.source.get(key)
            if facts is None:
                raise DataError(f"{card.path}: source needs source_colours or original_to_index; add one.")
            mapping = {value: stored.get(index, -1) for value, index in facts.items()}
        if -1 in mapping.values():
            lost = [str(value) for value, target in mapping.items() if target == -1]
            raise DataError(f"{card.path}: source.{key}: labels: lists no stored value for {shortened(lost)}; add it.")
        return cls.of_mapping(mapping, f"{card.path}: source.{key}", card.source.get("colour_threshold"))

    @classmethod
    def of_mapping(cls, mapping: Mapping[int | str, int], where: str, threshold: int | None = None) -> OriginalLabels:
        """Build from pairs original -> stored id.

        Args:
            mapping: its keys are integers, or colours as texts ``"255,0,0"``; not both.
            where: file and key, for messages.
            threshold: see the class.

        Raises:
            DataError: keys or values of other kinds.
        """
        colours = any(isinstance(key, str) for key in mapping)
        try:
            table = sorted((_colour(key) if colours else int(key), stored) for key, stored in mapping.items())
        except (AttributeError, ValueError, TypeError):
            raise DataError(
                f'{where}: keys must be integers, or colours like "255,0,0"; found {list(mapping)}.'
            ) from None
        if not table or any(type(stored) is not int or not 0 <= stored <= 255 for _, stored in table):
            raise DataError(f"{where}: values must be stored ids 0..255; found {list(mapping.values())}.")
        return cls(tuple(table), colours, threshold)

    def read(self, member: Member) -> np.ndarray:
        """Read a label file.

        Returns:
            uint8 [H, W], stored ids.

        Raises:
            DataError: damaged, of the wrong kind, or with values that the table does not list; the message says
                which, how many pixels, and where the first one is.
        """
        with open_labels(member, colours=self.colours) as raster:
            return self._encode(raster, member)

    def _encode(self, raster: Raster, member: Member) -> np.ndarray:
        known = np.array([value for value, _ in self.table], np.int64)
        stored = np.array([value for _, value in self.table], np.uint8)
        result = np.empty((raster.height, raster.width), np.uint8)
        unknown: dict[int, list[int]] = {}  # value -> [pixels, row and column of the first]
        for top in range(0, raster.height, _ROWS):
            values = self._values(raster.rows(top, min(top + _ROWS, raster.height)))
            slots = np.searchsorted(known, values)
            slots[slots == len(known)] = 0
            strange = known[slots] != values
            if strange.any():
                self._count(unknown, values, strange, top)
            result[top : top + _ROWS] = stored[slots]
        if unknown:
            self._refuse(unknown, member)
        return result

    def _values(self, pixels: np.ndarray) -> np.ndarray:
        if not self.colours:
            return pixels.astype(np.int64)
        if self.threshold is not None:
            pixels = np.where(pixels >= self.threshold, np.uint8(255), np.uint8(0))
        return pixels.astype(np.int64) @ np.array([_RED, _GREEN, 1])

    @staticmethod
    def _count(unknown: dict[int, list[int]], values: np.ndarray, strange: np.ndarray, top: int) -> None:
        rows, columns = np.nonzero(strange)
        found, first, counts = np.unique(values[strange], return_index=True, return_counts=True)
        for value, index, count in zip(found.tolist(), first.tolist(), counts.tolist(), strict=True):
            entry = unknown.setdefault(value, [0, top + int(rows[index]), int(columns[index])])
            entry[0] += count

    def _refuse(self, unknown: Mapping[int, list[int]], member: Member) -> None:
        found = [
            f"{self._text(value)} ({pixels} pixels, the first at row {row}, column {column})"
            for value, (pixels, row, column) in sorted(unknown.items(), key=lambda item: -item[1][0])
        ]
        after = f" (after the threshold {self.threshold})" if self.threshold is not None else ""
        raise DataError(
            f"labels {member} hold values{after} that the card does not know: {shortened(found)}. Known are "
            f"{shortened([self._text(value) for value, _ in self.table], 20)}. Is it the right file? If it is, and the "
            "values mean nothing, list them as ignored in the source part of the card."
        )

    def _text(self, value: int) -> str:
        return f"{value >> 16},{value >> 8 & 255},{value & 255}" if self.colours else str(value)


def ignored_id(card: DatasetCard) -> int:
    """Return the id that a card stores for pixels that do not count; 255 where it lists none or several."""
    values = [value for value, index in _id_table(card) if index == IGNORE_LABEL]
    return values[0] if len(values) == 1 else IGNORE_LABEL


def _id_table(card: DatasetCard) -> tuple[tuple[int, int], ...]:
    if not isinstance(card.labels, IdEncoding):
        raise DataError(f"{card.path}: labels: prepared files store ids, not colours; describe them as ids.")
    return card.labels.table


def _colour(text: Any) -> int:
    red, green, blue = (int(channel) for channel in text.split(","))
    if not all(0 <= channel <= 255 for channel in (red, green, blue)):
        raise ValueError(text)
    return red * _RED + green * _GREEN + blue
