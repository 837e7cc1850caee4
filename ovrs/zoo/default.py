"""The model for people who name none: the best that needs no training and whose weights are here or can be fetched."""

from __future__ import annotations

import logging

from ovrs.errors import WeightsError
from ovrs.zoo.cache import cached_path, is_present
from ovrs.zoo.catalogue import entry_of
from ovrs.zoo.fetch import fetch

logger = logging.getLogger(__name__)

# Configuration and the weights that it needs, best first.
MODELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("training_free/segearth_ov", ("openai/ViT-B-16", "simfeatup/jbu_one")),
    ("training_free/segearth_ov_plain", ("openai/ViT-B-16",)),
)


def default_config() -> str:
    """Return the name of a configuration that runs without a checkpoint, its weights in the cache folder.

    What is there is preferred; otherwise weights are fetched. The choice is logged.

    Raises:
        WeightsError: nothing is there and nothing can be fetched; the message says what to put where.
    """
    for name, weights in MODELS:
        if all(is_present(entry_of(each)) for each in weights):
            return _chosen(name)
    reason = ""
    for name, weights in MODELS:
        try:
            for each in weights:
                fetch(each)
        except WeightsError as error:
            reason = reason or str(error)
            continue
        return _chosen(name)
    wanted = "; ".join(f"{entry_of(each).address} as {cached_path(entry_of(each))}" for each in MODELS[-1][1])
    raise WeightsError(
        f"no model was named, and the weights of the one that needs no training cannot be fetched ({reason}). Put "
        f"{wanted}; or name a model ('ovrs models' lists them)."
    )


def _chosen(name: str) -> str:
    logger.info("No model named: using %s, which needs no training.", name)
    return name
