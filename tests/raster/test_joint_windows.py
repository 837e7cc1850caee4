"""Windows that several models score together."""

from __future__ import annotations

import torch

from ovrs.raster.joint_windows import JointWindows
from ovrs.raster.model import ModelInfo
from ovrs.scores import ScoreRule, enlarge


class Colours:
    """A model whose classes are red and green: their values, with the means of ``cell`` pixels, are its scores."""

    def __init__(self, kernel: int, cell: int, rule: ScoreRule) -> None:
        self.info = ModelInfo(("red", "green"), kernel, rule, {}, cell)
        self.seen: list[tuple[int, ...]] = []

    def score(self, windows: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(windows.shape))
        return torch.nn.functional.avg_pool2d(windows[:, :2].float() / 255, self.info.cell)


def test_models_of_smaller_windows_see_several_and_probabilities_are_averaged():
    sure, other = ScoreRule("softmax"), ScoreRule("none")
    small, large = Colours(4, 1, sure), Colours(12, 2, other)
    joint = JointWindows(
        [small, large], [0.25, 0.75], ScoreRule("softmax", threshold=0.4), ("red", "green", "other"), {}
    )
    assert (joint.info.kernel, joint.info.cell, joint.info.labels) == (12, 1, ("red", "green", "other"))
    assert (joint.info.rule.activation, joint.info.rule.threshold) == ("none", 0.4)
    windows = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = windows[:, :2].float() / 255
    coarse = torch.stack([enlarge(each, (12, 12)) for each in torch.nn.functional.avg_pool2d(pixels, 2)])
    torch.testing.assert_close(joint.score(windows), 0.25 * pixels.softmax(dim=1) + 0.75 * coarse)
    assert set(small.seen) == {(2, 3, 4, 4)}
    assert large.seen == [(2, 3, 12, 12)]
