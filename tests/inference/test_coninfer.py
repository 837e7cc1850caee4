"""ConInfer's mixture against the original's, step by step, and what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import fill
from golden.free import assert_close, read_free

from ovrs.inference.refine.coninfer import MixtureFit, update
from ovrs.scores import ScoreRule, enlarge


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_free("coninfer_gmm")


@pytest.fixture(scope="module")
def samples(golden: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and prior of the recording, made by its formula."""
    meta = golden["meta"]
    seed, classes, dim, grid = meta["fill_seed"], meta["classes_count"], meta["dim"], meta["grid"]
    index = np.arange(meta["batch"] * grid**2)
    image, row, column = index // grid**2, index // grid % grid, index % grid
    label = (row // 5 + 2 * (column // 4) + image) % classes
    centres = fill.fill_value("coninfer.centres", (classes, dim), seed)
    noise = fill.fill_value("coninfer.noise", (len(index), dim), seed)
    features = F.normalize(torch.from_numpy(centres[label] + np.float32(1.3) * noise), dim=-1)
    spread = 0.03 * fill.fill_value("coninfer.cosines", (len(index), classes), seed)
    cosines = torch.from_numpy(0.22 + 0.004 * (label[:, None] == np.arange(classes)) + spread).float()
    assert_close(features, golden, "features")
    assert_close(cosines, golden, "cosines")
    return features, (meta["prior_scale"] * cosines).softmax(dim=-1)


@pytest.mark.parametrize("temperature", [50, 150])
def test_every_step_equals_the_original(temperature: int, golden: dict[str, Any], samples: tuple[torch.Tensor, ...]):
    features, prior = samples
    fit, stem = MixtureFit(temperature), f"t{temperature}"
    means, variance = fit.first_means(features, prior), torch.full((features.shape[1],), golden["meta"]["std_init"])
    assert_close(means, golden, f"{stem}/mean0")
    shares = fit.responsibilities(features, prior, means, variance)
    assert_close(shares, golden, f"{stem}/z1")
    for done in range(10):
        means, variance = update(features, shares)
        shares = fit.responsibilities(features, prior, means, variance)
        if not done:
            assert_close(shares, golden, f"{stem}/z2")
    assert_close(means, golden, f"{stem}/mean")
    assert_close(variance, golden, f"{stem}/variance")
    assert_close(fit(features, prior), golden, f"{stem}/z")


def test_decision_equals_the_original(golden: dict[str, Any], samples: tuple[torch.Tensor, ...]):
    meta = golden["meta"]
    rule = ScoreRule("softmax", meta["logit_scale"], "max", meta["prob_thd"], meta["bg_idx"])
    class_of = torch.tensor(meta["query_idx"])
    shares = MixtureFit(50)(*samples).T.unflatten(1, (meta["batch"], meta["grid"], meta["grid"]))
    for image, size in enumerate(meta["ori_shapes"]):
        scores = rule.scores(shares[:, image])
        assert_close(rule.probabilities(enlarge(scores, size), class_of), golden, f"post{image}/prob")
        labels, _ = rule.label_map(scores, tuple(size), class_of)
        assert (labels.numpy() == golden[f"post{image}/argmax"]).mean() >= 0.999


def test_the_same_batch_gives_the_same_and_order_does_not_matter(samples: tuple[torch.Tensor, ...]):
    features, prior = samples
    once = MixtureFit()(features, prior)
    assert torch.equal(once, MixtureFit()(features, prior))
    shuffled = torch.randperm(len(features))
    torch.testing.assert_close(MixtureFit()(features[shuffled], prior[shuffled]), once[shuffled])


def test_features_that_are_all_alike_do_no_harm():
    prior = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    shares = MixtureFit()(F.normalize(torch.ones(20, 8), dim=-1), prior)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(20))
