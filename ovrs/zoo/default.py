"""The model for people who name none: the best that needs no training and whose weights are here or can be fetched."""

from __future__ import annotations

from ovrs.errors import WeightsError
from ovrs.zoo.cache import is_present
from ovrs.zoo.catalogue import entry_of
from ovrs.zoo.fetch import fetch

# Configuration and the weights that it needs, best first; the last one needs least.
MODELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("training_free/segearth_ov", ("openai/ViT-B-16", "simfeatup/jbu_one")),
    ("training_free/segearth_ov_plain", ("openai/ViT-B-16",)),
)


def default_config() -> str:
    """Return the name of a configuration that runs without a checkpoint, its weights in the cache folder.

    What is there is preferred; otherwise weights are fetched.

    Raises:
        WeightsError: nothing is there and nothing can be fetched; the message says what to put where.
    """
    for name, weights in MODELS:
        if all(is_present(entry_of(each)) for each in weights):
            return name
    failed: dict[str, WeightsError] = {}
    for name, weights in MODELS:
        try:
            for each in weights:
                if each in failed:
                    raise failed[each]
                fetch(each)
            return name
        except WeightsError as error:
            failed[each] = error
    error = next(failed[each] for each in MODELS[-1][1] if each in failed)
    raise WeightsError(
        "no model was named, and the one that needs no training lacks its weights, which cannot be fetched. "
        f"{error} Or name a model: 'ovrs models' lists them."
    ) from error
