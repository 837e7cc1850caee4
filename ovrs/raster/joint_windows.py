"""Several models as one scorer of windows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ovrs.inference import SlidingWindow
from ovrs.raster.model import ModelInfo
from ovrs.raster.segmenter_windows import SegmenterWindows
from ovrs.scores import ScoreRule, enlarge

OVERLAP = 1 / 3  # of the smaller windows that a model sees of a common one


class JointWindows:
    """Scores windows with several models: the weighted mean of their probabilities.

    A model whose windows are smaller than the largest ones sees several in each of those; where they overlap, its
    scores are averaged.

    Args:
        members: the models, all with the same classes.
        shares: the weight of each; they sum to 1.
        rule: the threshold and what lies below it.
        labels: as of :class:`ovrs.raster.segmenter_windows.SegmenterWindows`.
        identity: likewise.
    """

    def __init__(
        self,
        members: Sequence[SegmenterWindows],
        shares: Sequence[float],
        rule: ScoreRule,
        labels: tuple[str, ...],
        identity: dict[str, str],
    ) -> None:
        self._members, self._shares = tuple(members), tuple(shares)
        first = members[0].info
        self.info = ModelInfo(
            names=first.names,
            other="".join(labels[len(first.names) :]),
            kernel=max(member.info.kernel for member in members),
            rule=replace(rule, activation="none"),
            identity=identity,
            batch_size=first.batch_size,
        )

    def score(self, windows: Tensor) -> Tensor:
        """See :class:`ovrs.raster.model.WindowModel`."""
        parts = zip(self._members, self._shares, strict=True)
        return sum(share * self._probabilities(member, windows) for member, share in parts)

    def _probabilities(self, member: SegmenterWindows, windows: Tensor) -> Tensor:
        """Return [N, T, kernel, kernel]."""
        side, rule = member.info.kernel, member.info.rule
        starts = SlidingWindow(0, side, OVERLAP, False).starts(self.info.kernel)
        scores: Tensor | None = None
        for top, left in itertools.product(starts, starts):
            area = (..., slice(top, top + side), slice(left, left + side))
            found = torch.stack([enlarge(each, (side, side)) for each in member.score(windows[area])])
            if scores is None:
                scores = found.new_zeros(*found.shape[:2], *windows.shape[-2:])
                counts = found.new_zeros(windows.shape[-2:])
            scores[area] += found
            counts[area[-2:]] += 1
        classes = member.info.class_of or range(len(member.info.names))
        class_of = torch.tensor(classes, device=scores.device)
        return torch.stack([rule.probabilities(each, class_of) for each in scores / counts])
