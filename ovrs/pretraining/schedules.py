"""What changes from step to step; every value is a function of the step alone, so resuming replays nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ovrs.pretraining.recipe import Recipe

_RATE_IS_FOR = 256  # images per step


@dataclass(frozen=True)
class StepSettings:
    """The settings of one step.

    Attributes:
        rate: learning rate.
        decay: weight decay.
        momentum: share of the teacher that stays.
        temperature: of the teacher.
        last_layer_trains: whether the head's last layer is updated.
    """

    rate: float
    decay: float
    momentum: float
    temperature: float
    last_layer_trains: bool


def settings_at(step: int, recipe: Recipe, steps_per_epoch: int) -> StepSettings:
    """Return the settings of a step.

    Args:
        step: from 0 to ``recipe.epochs * steps_per_epoch - 1``.
        recipe: reads ``lr*``, ``weight_decay*``, ``teacher_*`` and ``freeze_last_layer_epochs``.
        steps_per_epoch: at least 1.
    """
    total, epoch = recipe.epochs * steps_per_epoch, step // steps_per_epoch
    warmup = recipe.lr_warmup_epochs * steps_per_epoch
    greatest = recipe.lr * recipe.batch_size / _RATE_IS_FOR
    return StepSettings(
        rate=(
            linear(step, warmup, 0.0, greatest)
            if step < warmup
            else cosine(step - warmup, total - warmup, greatest, recipe.lr_end)
        ),
        decay=cosine(step, total, recipe.weight_decay, recipe.weight_decay_end),
        momentum=cosine(step, total, recipe.teacher_momentum, 1.0),
        temperature=linear(
            epoch, recipe.teacher_temperature_epochs, recipe.teacher_temperature_start, recipe.teacher_temperature
        ),
        last_layer_trains=epoch >= recipe.freeze_last_layer_epochs,
    )


def cosine(step: int, steps: int, first: float, last: float) -> float:
    """Return the value at ``step`` of half a cosine from ``first`` that would reach ``last`` at ``steps``."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * step / steps))


def linear(step: int, steps: int, first: float, last: float) -> float:
    """Return the value at ``step`` of a line from ``first`` that reaches ``last`` at ``steps - 1`` and stays there."""
    return first + (last - first) * step / (steps - 1) if step < steps - 1 else last
