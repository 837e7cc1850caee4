"""Attention of CLIP's last block, changed so that its tokens keep their place: results without training.

Queries, keys and values are the block's own; only who looks at whom changes. MaskCLIP (ECCV 2022): every token at
itself; SCLIP (ECCV 2024): query with query plus key with key; ClearCLIP (ECCV 2024): query with query; NACLIP (WACV
2025): key with key, neighbours favoured; SegEarth-OV (CVPR 2025): query, key and value each with itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Attention = Literal["vanilla", "maskclip", "sclip", "clearclip", "naclip", "segearth"]
# What is compared with what; the sum of the softmaxes, not their mean, weighs the values.
_PAIRS: dict[str, tuple[str, ...]] = {
    "vanilla": ("qk",),
    "maskclip": (),
    "sclip": ("qq", "kk"),
    "clearclip": ("qq",),
    "naclip": ("kk",),
    "segearth": ("qq", "kk", "vv"),
}


def attend(
    kind: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    sigma: float = 5.0,
    earlier: Sequence[tuple[Tensor, Tensor]] = (),
    share: float = 0.0,
    values: Tensor | None = None,
) -> Tensor:
    """Weigh the values of a block.

    Args:
        kind: the method.
        q: [B, heads, 1 + h * w, d] queries of one block, class token first, before any scaling.
        k: its keys.
        v: its values.
        grid: (h, w).
        sigma: standard deviation in patches of NACLIP's Gaussian.
        earlier: (queries, keys) of earlier blocks, whose ordinary attention is mixed in (ConInfer's tower).
        share: their part ``a``: with A the method's own matrix of row sum n and R the sum of the ordinary ones, the
            values are weighed by n ((1 - a) A + a R). Without ``earlier``, by A.
        values: what is weighed instead of ``v``, which is then only compared; the identity gives the weights.

    Returns:
        [B, heads, 1 + h * w, d].
    """
    parts = {"q": q, "k": k, "v": v}
    bias = neighbour_bias(grid, sigma, q) if kind == "naclip" else None
    pairs, values = _PAIRS[kind], v if values is None else values
    own = (
        _total(F.scaled_dot_product_attention(parts[a], parts[b], values, attn_mask=bias) for a, b in pairs)
        if pairs
        else values
    )
    if not earlier or not share:
        return own
    mixed = _total(F.scaled_dot_product_attention(queries, keys, values) for queries, keys in earlier)
    return max(len(pairs), 1) * ((1 - share) * own + share * mixed)


def neighbour_bias(grid: tuple[int, int], sigma: float, like: Tensor) -> Tensor:
    """Return [1 + h * w, 1 + h * w], added to attention logits: exp(-distance² / (2 sigma²)), 0 for the class token.

    NACLIP, Eq. 5 and 6: a Gaussian of peak 1 around every patch, distance in patches.

    Args:
        grid: (h, w).
        sigma: in patches.
        like: gives device and dtype.
    """
    places = torch.cartesian_prod(*(torch.arange(side, device=like.device, dtype=torch.float32) for side in grid))
    squared = (places[:, None] - places[None]).square().sum(dim=-1)
    return F.pad(torch.exp(-squared / (2 * sigma**2)), (1, 0, 1, 0)).to(like.dtype)


def class_bias(cosines: Tensor, token: Tensor, words: Tensor, factor: float) -> Tensor:
    """Add ``factor`` times the whole image's cosine with every word: SegEarth-OV's global bias alleviation (-0.3).

    Args:
        cosines: [B, Q, h, w].
        token: [B, C] class token of the image, not normalised.
        words: [Q, C] unit embeddings.
        factor: lambda; 0 leaves the cosines.
    """
    if not factor:
        return cosines
    whole = F.normalize(token.float(), dim=-1) @ words.float().T
    return cosines + factor * whole[:, :, None, None]


def _total(terms: object) -> Tensor:
    first, *rest = terms
    for term in rest:
        first = first + term
    return first
