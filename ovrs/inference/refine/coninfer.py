"""ConInfer: patches of several images decide together, by a mixture of Gaussians over another tower's features.

A class is one Gaussian in the feature space of a prior (DINOv3); scores are the prior probabilities of a patch's class.
Patches that look alike thereby get the same class, in all images of a batch. The result depends on which images are
fitted together, those of one call (``TEST.IMS_PER_BATCH``, per process): state them with every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ovrs.config.options import Options, option
from ovrs.errors import ConfigError
from ovrs.inference.refine.base import Refiner, register_refiner, with_scores
from ovrs.inference.views import ScoreMap
from ovrs.scores import ScoreRule
from ovrs.structures import TowerFeatures, TowerRequest, TowerSpec

_LEAST_VARIANCE = 1e-6  # a dimension in which all samples agree; typical is 1 / D


@dataclass(frozen=True)
class MixtureFit:
    """A mixture of Gaussians with one shared diagonal covariance, fitted by expectation maximisation.

    Attributes:
        temperature: divides log-likelihoods, which in hundreds of dimensions would outweigh any prior; 50 as
            published, 150 for iSAID.
        rounds: updates of means and covariance; responsibilities are updated once more.
        surest: per class, the most probable samples that the first means are made of.
    """

    temperature: float = 50.0
    rounds: int = 10
    surest: int = 8

    def __call__(self, features: Tensor, prior: Tensor) -> Tensor:
        """Return [N, Q] responsibilities.

        Args:
            features: [N, D] unit features of all patches of all images that decide together.
            prior: [N, Q] probabilities of every patch's class, rows sum to 1.
        """
        features, prior = features.float(), prior.float()
        means = self.first_means(features, prior)
        variance = features.new_full((features.shape[1],), 1 / features.shape[1])
        for _ in range(self.rounds):
            shares = self.responsibilities(features, prior, means, variance)
            means, variance = update(features, shares)
        return self.responsibilities(features, prior, means, variance)

    def first_means(self, features: Tensor, prior: Tensor) -> Tensor:
        """Return [Q, D] unit means of the surest samples of every class, weighted by their probability."""
        weights, samples = prior.topk(min(self.surest, len(prior)), dim=0)
        return F.normalize(torch.einsum("sq,sqd->qd", weights, features[samples]), dim=-1)

    def responsibilities(self, features: Tensor, prior: Tensor, means: Tensor, variance: Tensor) -> Tensor:
        """Return [N, Q], rows sum to 1: prior times tempered likelihood."""
        # Of -1/2 sum_d (x - mean)² / variance, what is the same for all classes falls out.
        scaled = means / variance
        likelihood = features @ scaled.T - 0.5 * (means * scaled).sum(dim=-1)
        return (prior.clamp(min=torch.finfo(prior.dtype).tiny).log() + likelihood / self.temperature).softmax(dim=-1)


def update(features: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return unit means [Q, D] and the shared variance [D] around them."""
    means = F.normalize(shares.T @ features, dim=-1)
    # sum_nq z (x - mean)², expanded: no array of samples by classes by dimensions
    mass = shares.sum(dim=0)
    squares = shares.sum(dim=1) @ features.square()
    cross = (means * (shares.T @ features)).sum(dim=0)
    variance = (squares - 2 * cross + mass @ means.square()) / mass.sum()
    return means, variance.clamp(min=_LEAST_VARIANCE)


@dataclass(frozen=True)
class ConInferOptions(Options):
    """``MODEL.CONINFER``."""

    temperature: float = option(50.0, "divides log-likelihoods; 150 for iSAID as published", above=0)
    rounds: int = option(10, "updates of means and variance", minimum=0)
    surest: int = option(8, "samples per class that the first means are made of", minimum=1)
    sharpness: float = option(
        2.0, "factor of the scores in the prior; published: 100 / the scale of the cosines", above=0
    )
    contrast: float = option(5.0, "factor of the refined shares before the last softmax", above=0)


@register_refiner("coninfer", ConInferOptions)
class ConInfer(Refiner):
    """A joint fit of all images of a call; features are those of ``MODEL.PRIOR``, of each whole image in one view."""

    requests: Mapping[str, TowerRequest] = {"prior": TowerRequest()}

    def __init__(self, options: ConInferOptions, towers: Mapping[str, TowerSpec]) -> None:
        super().__init__(options, towers)
        if "prior" not in towers or not towers["prior"].input_size:
            raise ConfigError(
                "TEST.REFINE 'coninfer' reads a second tower that sees squares of one size: set MODEL.PRIOR.NAME and "
                "MODEL.PRIOR.INPUT_SIZE (published: DINOv3 at 448)."
            )
        self._side = towers["prior"].input_size
        self._fit = MixtureFit(options.temperature, options.rounds, options.surest)

    def guide(self, images: Sequence[Tensor], look: Callable[[str, Tensor], TowerFeatures]) -> Tensor:
        """Return [B, D, g, g] unit features of the images, squashed to the prior's square with antialiasing."""
        size = (self._side, self._side)
        squashed = [F.interpolate(image[None], size, mode="bilinear", antialias=True) for image in images]
        return F.normalize(look("prior", torch.cat(squashed)).dense.float(), dim=1)

    def rule(self, rule: ScoreRule) -> ScoreRule:
        """Refined scores compete with each other, whatever the head's did."""
        return replace(rule, activation="softmax")

    def __call__(self, maps: Sequence[ScoreMap], guide: Tensor, rule: ScoreRule) -> list[ScoreMap]:
        """Return scores on the prior's grid."""
        grid = tuple(guide.shape[-2:])
        logits = torch.stack([_on_grid(found.scores, grid) for found in maps])  # [B, Q, g, g]
        if rule.activation != "softmax":
            logits = logits.clamp(min=1e-6).log()
        prior = (self.settings.sharpness * logits).softmax(dim=1).movedim(1, -1).flatten(0, 2)
        shares = self._fit(guide.movedim(1, -1).flatten(0, 2), prior)
        shares = shares.unflatten(0, (len(maps), *grid)).movedim(-1, 1) * self.settings.contrast
        return [with_scores(found, scores) for found, scores in zip(maps, shares, strict=True)]


def _on_grid(scores: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bring [Q, h, w] scores to a grid: the mean over a cell, or between cells."""
    if scores.shape[-2] >= grid[0] and scores.shape[-1] >= grid[1]:
        return F.adaptive_avg_pool2d(scores, grid)
    return F.interpolate(scores[None], grid, mode="bilinear", align_corners=False)[0]
