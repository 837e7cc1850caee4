"""How alike two lists of classes are, by the embeddings of their names."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LabelSetSimilarity:
    """The Hausdorff comparison of two sets of embeddings.

    Attributes:
        similarity: of the class that is farthest from the other list, its cosine with the nearest class there; 1 for
            lists that say the same.
        first: for each class of the first list, the cosine with its nearest class in the second.
        second: the other way round.
        nearest: for each class of the first list, the index of that nearest class.
    """

    similarity: float
    first: tuple[float, ...]
    second: tuple[float, ...]
    nearest: tuple[int, ...]

    @property
    def distance(self) -> float:
        """The Hausdorff distance in the space of unit embeddings: the square root of 2 - 2 similarity."""
        return max(2.0 - 2.0 * self.similarity, 0.0) ** 0.5


def label_set_similarity(first: Tensor, second: Tensor) -> LabelSetSimilarity:
    """Compare two lists of classes.

    GSNet's Table 7 prints this under the name of similarity and calls it a Hausdorff distance; whether names were put
    into sentences is not said.

    Args:
        first: [N, C] text embeddings, of any length.
        second: [M, C] of the other list.
    """
    cosine = F.normalize(first.double(), dim=-1) @ F.normalize(second.double(), dim=-1).T
    of_first, nearest = cosine.max(dim=1)
    of_second = cosine.amax(dim=0)
    return LabelSetSimilarity(
        similarity=min(of_first.min().item(), of_second.min().item()),
        first=tuple(of_first.tolist()),
        second=tuple(of_second.tolist()),
        nearest=tuple(nearest.tolist()),
    )
