"""PAMR against the written-out sums, and what it is for."""

from __future__ import annotations

import torch

from ovrs.inference.refine.pamr import pamr


def naive(image: torch.Tensor, scores: torch.Tensor, rounds: int, dilations: tuple[int, ...]) -> torch.Tensor:
    height, width = image.shape[-2:]
    offsets = [(r * a, r * b) for r in dilations for a in (-1, 0, 1) for b in (-1, 0, 1)]

    def at(values: torch.Tensor, y: int, x: int) -> torch.Tensor:
        return values[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    for _ in range(rounds):
        smoothed = torch.zeros_like(scores)
        for y in range(height):
            for x in range(width):
                window = torch.stack([at(image, y + dy, x + dx) for dy, dx in offsets])
                spread = window.std(dim=0)
                ring = [(dy, dx) for dy, dx in offsets if (dy, dx) != (0, 0)]
                likeness = torch.stack(
                    [
                        -((at(image, y + a, x + b) - image[:, y, x]).abs() / (0.1 * spread + 1e-8)).mean()
                        for a, b in ring
                    ]
                )
                weights = likeness.softmax(dim=0)
                smoothed[:, y, x] = sum(w * at(scores, y + a, x + b) for w, (a, b) in zip(weights, ring, strict=True))
        scores = smoothed
    return scores


def test_equals_the_written_out_sums():
    generator = torch.Generator().manual_seed(0)
    image, scores = torch.rand(3, 6, 7, generator=generator), torch.rand(2, 6, 7, generator=generator)
    torch.testing.assert_close(pamr(image, scores, 2, (1, 3)), naive(image, scores, 2, (1, 3)))


def test_scores_follow_an_edge_of_the_image():
    image = torch.zeros(3, 20, 20)
    image[:, :, 10:] = 1
    image += 0.01 * torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    scores = torch.zeros(1, 20, 20)
    scores[:, :, 8:] = 1  # two columns too far
    found = pamr(image, scores, rounds=20, dilations=(1, 2))
    assert found[0, 5:15, :9].max() < 0.5 < found[0, 5:15, 11:].min()


def test_probabilities_stay_probabilities():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(4, 24, 30, generator=generator).softmax(dim=0)
    found = pamr(torch.rand(3, 24, 30, generator=generator), scores)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(24, 30))
