"""Views: the pieces of images that a model sees, and how the scores of views become those of images.

A *plan* cuts a batch of images into batches of views (windows, or whole padded images) and puts the views' scores
together again. Between the two stands the model, so the features of views can be kept and asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

Size = tuple[int, int]
Item = TypeVar("Item")


@dataclass(frozen=True)
class ScoreMap:
    """Scores of one image, at the resolution at which they were put together.

    Attributes:
        scores: [T or Q, h', w'].
        full: (height, width) to which they are to be enlarged ...
        size: ... and the (height, width) of the upper left part of that which is the result.
    """

    scores: Tensor
    full: Size
    size: Size


class Plan(Protocol):
    """How images become views, and scores of views scores of images."""

    def views(self, images: Sequence[Tensor]) -> Iterator[tuple[list[Any], Tensor]]:
        """Yield (keys, views [N, 3, h, w]) of normalised [3, H, W] images; a key says what its view shows."""
        ...

    def enlarged(self, keys: Sequence[Any], logits: Tensor) -> Tensor:
        """Bring the logits of a batch of views to the resolution at which their scores are put together."""
        ...

    def merge(
        self, own: Sequence[Size], wanted: Sequence[Size], scored: Iterable[tuple[list[Any], Tensor]]
    ) -> list[ScoreMap]:
        """Put scores of views together.

        Args:
            own: (height, width) of the images that were cut.
            wanted: (height, width) of their results.
            scored: what :meth:`views` yielded, each batch of views replaced by its [N, T, h', w'] scores.
        """
        ...


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of ``size`` items; the last may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
