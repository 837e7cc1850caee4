"""Every schedule against DINO's own formulas, written with NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from ovrs.pretraining.schedules import settings_at

STEPS = 5  # per epoch


def reference(first: float, last: float, steps: int, warmup: int = 0) -> np.ndarray:
    iterations = np.arange(steps - warmup)
    cosine = last + 0.5 * (first - last) * (1 + np.cos(np.pi * iterations / len(iterations)))
    return np.concatenate([np.linspace(0, first, warmup), cosine])


@pytest.fixture
def settings(tiny_recipe):
    recipe = tiny_recipe(EPOCHS=40, BATCH_SIZE=64)
    return [settings_at(step, recipe, STEPS) for step in range(40 * STEPS)]


def test_rate_rises_in_a_line_and_falls_as_half_a_cosine(settings):
    expected = reference(5e-4 * 64 / 256, 1e-6, 40 * STEPS, 10 * STEPS)
    np.testing.assert_allclose([each.rate for each in settings], expected, rtol=1e-12)


def test_decay_and_momentum_follow_half_a_cosine(settings):
    np.testing.assert_allclose([each.decay for each in settings], reference(0.04, 0.4, 40 * STEPS), rtol=1e-12)
    np.testing.assert_allclose([each.momentum for each in settings], reference(0.996, 1, 40 * STEPS), rtol=1e-12)


def test_temperature_rises_epoch_by_epoch_to_gsnets(settings):
    expected = np.concatenate([np.linspace(0.04, 0.07, 30), np.full(10, 0.07)])
    np.testing.assert_allclose([each.temperature for each in settings], expected.repeat(STEPS), rtol=1e-12)


def test_last_layer_waits_for_the_second_epoch(settings):
    assert [each.last_layer_trains for each in settings[: STEPS + 1]] == [False] * STEPS + [True]


def test_warm_ups_longer_than_the_run_are_cut_off(tiny_recipe):
    recipe = tiny_recipe(EPOCHS=1, LR_WARMUP_EPOCHS=10)
    rates = [settings_at(step, recipe, STEPS).rate for step in range(STEPS)]
    assert rates == sorted(rates)
    assert rates[0] == 0
