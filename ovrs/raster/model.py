"""What a model is to the raster engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ovrs.scores import ScoreRule


@dataclass(frozen=True)
class ModelInfo:
    """What must be known of a model before it sees an image.

    Attributes:
        names: the classes, in the order of the labels.
        other: the name of the label after the last class, which weak pixels get; "" where there is none.
        kernel: side of the windows that it wants, in pixels.
        cell: pixels per score along a side; divides ``kernel``.
        rule: what its scores mean.
        class_of: the class of every row of scores; ``None`` where there is one row per class.
        identity: what tells it from others (name, checksum, words, …); a run goes on only with the same.
        batch_size: windows per pass.
    """

    names: tuple[str, ...]
    kernel: int
    rule: ScoreRule
    identity: dict[str, str]
    cell: int = 1
    class_of: tuple[int, ...] | None = None
    other: str = ""
    batch_size: int = 1

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of every label."""
        return (*self.names, self.other) if self.other else self.names


class WindowModel(Protocol):
    """Scores windows. It is called from one thread at a time."""

    info: ModelInfo

    def score(self, windows: Tensor) -> Tensor:
        """Score windows.

        Every call brings ``info.batch_size`` windows, so that no result depends on how many there were; the result of
        a window must not depend on the others.

        Args:
            windows: uint8 [N, 3, kernel, kernel] RGB.

        Returns:
            Float scores as of ``info.rule.scores``, [N, Q, kernel / cell, kernel / cell].
        """
        ...
