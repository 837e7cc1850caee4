"""Which parameters of a tower train.

Each mode is a set of name patterns. The names are this project's: attention weights are kept apart as
``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight`` (see ovrs.backbones.attention) so that a
frozen part is really frozen: no gradient, no weight decay, no optimizer state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from ovrs.errors import ConfigError, choose

# Hugging Face text towers name the same parts "attention.self.query" and ".value".
_QV = (r"\.attn\.[qv]_proj_weight$", r"\.attention\.self\.(query|value)\.weight$")
_POSITION = (r"(^|\.)positional_embedding$", r"(^|\.)pos_embed$", r"position_embeddings\.weight$")
_EVERY_ATTENTION = (r"\.attn\.", r"\.attention\.")

VLM_MODES: dict[str, tuple[str, ...]] = {
    "frozen": (),
    # Query and value weights, no biases: CAT-Seg's and GSNet's "attention".
    "attention": _QV,
    # The same and the position embedding: the text side of GSNet's "freezeIMG".
    "attention_position": _QV + _POSITION,
    # Every attention tensor, biases included, and the position embedding: HG-RSOVSSeg's "attention".
    "attention_all": _EVERY_ATTENTION + _POSITION,
    "position": _POSITION,
    # Transformer blocks, not embeddings, projections and outer norms: GSNet's "full".
    "full": (r"(^|\.)transformer\.", r"(^|\.)encoder\.layer\."),
    "all": (r"",),
}

PRIOR_MODES: dict[str, tuple[str, ...]] = {
    "frozen": (),
    # The whole qkv weight and the position embedding: GSNet's DINO "attention".
    "attention": (r"\.attn\.qkv\.weight$", r"(^|\.)pos_embed$"),
    "full": (r"",),
}


def set_trainable(
    parameters: Iterable[tuple[str, nn.Parameter]], mode: str, modes: dict[str, tuple[str, ...]], key: str
) -> None:
    """Set ``requires_grad`` of every named parameter as ``mode`` says.

    Args:
        parameters: (name, parameter) pairs.
        mode: a key of ``modes``.
        modes: ``VLM_MODES`` or ``PRIOR_MODES``.
        key: configuration key of the mode, for the error message.

    Raises:
        ConfigError: unknown mode, or a mode that trains something but matches no parameter.
    """
    patterns = [re.compile(pattern) for pattern in modes[choose(key, mode, tuple(modes))]]
    matched = False
    for name, parameter in parameters:
        parameter.requires_grad_(any(pattern.search(name) for pattern in patterns))
        matched |= parameter.requires_grad
    if patterns and not matched:
        raise ConfigError(f"{key} is {mode!r}, but this tower has no parameter of that kind; use 'frozen' or 'all'.")
