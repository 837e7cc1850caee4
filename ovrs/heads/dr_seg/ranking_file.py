"""Which channels of the joint image-text space tell classes apart: DR-Seg's offline channel ranking (SPSD).

A channel is *semantic* if few classes activate it and pixels of different classes disagree about it; the other
channels are *structural*. The ranking is made once per vision-language model and training set, by
``tools/rank_channels.py``; training and inference only read the file. Equation numbers are those of the DR-Seg
paper (arXiv 2604.02010). Notation: ``K`` classes, ``C`` channels, ``v`` the unit feature of a pixel, ``P_k`` the
pixels of class k that are looked at (its prototypes) and ``n_k`` their number. All arithmetic is float64.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovrs.errors import UserError
from ovrs.files import replacing

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

EPS = 1e-8  # of Eq. 1 and 2
DEAD = 1e-6  # a channel whose activations sum to less over all classes is dead
WEIGHTINGS = ("balanced", "pairs")
_SCORE_DECIMALS = 12  # scores that differ by less are ties
_SHARE_SLACK = 1e-6  # 0.3 * 10 is a little less than 3 in binary

# Arrays of the file: name, type and shape.
_LAYOUT: dict[str, tuple[type[np.generic], str]] = {
    "order": (np.int64, "C"),
    "score": (np.float64, "C"),
    "entropy": (np.float64, "C"),
    "inter_sim": (np.float64, "C"),
    "rank_h": (np.float64, "C"),
    "rank_s": (np.float64, "C"),
    "mean": (np.float64, "KC"),
    "relu_mean": (np.float64, "KC"),
    "counts": (np.int64, "K"),
    "channel_rms": (np.float64, "C"),
}
_REMEDY = "Make a new file with tools/rank_channels.py."


class RankingError(UserError):
    """A channel ranking that cannot be computed, read or used; the message names the file or value and the remedy."""


def checked_lambda(lam: float) -> float:
    """Return ``lam``, or raise RankingError if it is outside 0..1."""
    if not 0 <= lam <= 1:
        raise RankingError(f"lambda (MODEL.DR_SEG.SPSD.LAMBDA) must be in 0..1, got {lam}.")
    return lam


def checked_weighting(weighting: str) -> str:
    """Return ``weighting``, or raise RankingError if it is not one of ``WEIGHTINGS``."""
    if weighting not in WEIGHTINGS:
        raise RankingError(
            f"weighting (MODEL.DR_SEG.SPSD.S_WEIGHTING) must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}."
        )
    return weighting


# ---------------------------------------------------------------------- criteria


def dead_channels(relu_mean: Floats) -> NDArray[np.bool_]:
    """Return [C] whether no class activates a channel, given the activations u of :func:`selectivity_entropy`."""
    return relu_mean.sum(axis=0) < DEAD


def selectivity_entropy(relu_mean: Floats) -> Floats:
    """Return [C] H_c, the entropy of a channel's activation over classes (Eq. 1 and 2); low is selective.

    p_{k,c} = u_{k,c} / (sum_j u_{j,c} + eps) and H_c = - sum_k p_{k,c} log2(p_{k,c} + eps), in bits, 0..log2 K
    (up to eps). A dead channel would get 0 by the letter and so be the best of all; it gets log2 K, the worst.

    Args:
        relu_mean: [K, C] u_{k,c}, the mean of max(v_c, 0) over P_k.
    """
    share = relu_mean / (relu_mean.sum(axis=0) + EPS)
    entropy = -(share * np.log2(share + EPS)).sum(axis=0)
    return np.where(dead_channels(relu_mean), np.log2(len(relu_mean)), entropy)


def inter_class_similarity(mean: Floats, counts: Indices, weighting: str = "balanced") -> Floats:
    """Return [C] S_c, the mean of v_{i,c} v_{j,c} over pairs of prototypes of different classes (Eq. 3); low is good.

    No pair is ever formed. With s_{k,c} the sum of v_c over P_k, t_c = sum_k s_{k,c} and P = sum_k n_k, the mean
    over ordered pairs (unordered ones give the same) is (t_c^2 - sum_k s_{k,c}^2) / (P^2 - sum_k n_k^2).

    Args:
        mean: [K, C], the means of v over P_k.
        counts: [K] n_k, all above 0.
        weighting: ``pairs`` is the formula above; ``balanced`` counts every pair of classes alike, as if all
            n_k were equal, which they are by the paper's sampling.

    Raises:
        RankingError: fewer than two classes, or an unknown weighting.
    """
    if len(mean) < 2:
        raise RankingError(
            f"the inter-class similarity needs pixels of at least two classes, got {len(mean)}. Rank on a training "
            "split whose labels cover the image, or lower the purity (MODEL.DR_SEG.SPSD.PURITY)."
        )
    weights = counts.astype(np.float64) if checked_weighting(weighting) == "pairs" else np.ones(len(mean))
    sums = weights[:, None] * mean
    pairs = weights.sum() ** 2 - (weights**2).sum()
    return (sums.sum(axis=0) ** 2 - (sums**2).sum(axis=0)) / pairs


def ordinal_rank(values: Floats) -> Floats:
    """Return Rank(.) in 0..1: 0 for the smallest value, 1 for the largest; of equal values the first is lower."""
    rank = np.empty(len(values))
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    return rank / max(len(values) - 1, 1)


def score(rank_h: Floats, rank_s: Floats, lam: float) -> Floats:
    """Return [C] Score_c = lambda (1 - Rank(H_c)) + (1 - lambda) (1 - Rank(S_c)) (Eq. 4), in 0..1; high is semantic.

    Raises:
        RankingError: ``lam`` is outside 0..1.
    """
    checked_lambda(lam)
    return lam * (1 - rank_h) + (1 - lam) * (1 - rank_s)


def order(score: Floats) -> Indices:
    """Return [C] channel indices by descending score; equal scores (to 12 decimals) keep the order of channels."""
    return np.argsort(-np.round(score, _SCORE_DECIMALS), kind="stable").astype(np.int64)


def channel_count(share: float, channels: int) -> int:
    """Return floor(share * channels), safe against binary fractions.

    Raises:
        RankingError: ``share`` is outside 0..1.
    """
    if not 0 <= share <= 1:
        raise RankingError(f"a share of channels (MODEL.DR_SEG.SPSD.RHO) must be in 0..1, got {share}.")
    return int(share * channels + _SHARE_SLACK)


# ---------------------------------------------------------------------- the ranking and its file


@dataclass(frozen=True, eq=False)
class ChannelRanking:
    """The channels of one joint space from semantic to structural, and all that the order follows from.

    Attributes:
        order: [C] int64, a permutation of the channels, most semantic first; pi in the paper.
        score: [C] Eq. 4 per channel, in 0..1.
        entropy: [C] H_c, Eq. 2.
        inter_sim: [C] S_c, Eq. 3.
        rank_h, rank_s: [C] Rank(H_c) and Rank(S_c), in 0..1.
        mean: [K, C] mean of the unit features per class; zeros for a class without prototypes.
        relu_mean: [K, C] the same of their positive part; u in Eq. 1.
        counts: [K] int64, prototypes per class. Classes without any took no part in either criterion.
        channel_rms: [C] root mean square of the features before they were normalised.
        meta: provenance, plain JSON values: ``classes``, ``dataset``, ``lambda``, ``vlm_sha256`` and more.
    """

    order: Indices
    score: Floats
    entropy: Floats
    inter_sim: Floats
    rank_h: Floats
    rank_s: Floats
    mean: Floats
    relu_mean: Floats
    counts: Indices
    channel_rms: Floats
    meta: dict[str, Any]

    @classmethod
    def from_class_means(
        cls,
        mean: Floats,
        relu_mean: Floats,
        counts: Indices,
        channel_rms: Floats,
        *,
        lam: float = 0.3,
        weighting: str = "balanced",
        meta: dict[str, Any] | None = None,
    ) -> ChannelRanking:
        """Rank channels by both criteria.

        Args:
            mean: [K, C] mean of the unit features per class; anything finite for a class without prototypes.
            relu_mean: [K, C] the same of their positive part.
            counts: [K] prototypes per class.
            channel_rms: [C] see the attributes.
            lam: weight of the entropy's rank in the score, 0..1.
            weighting: of the inter-class similarity, see :func:`inter_class_similarity`.
            meta: provenance; ``lambda``, ``weighting`` and ``eps`` are added.

        Raises:
            RankingError: pixels of fewer than two classes, features that are not finite, or an argument out of range.
        """
        if not all(np.isfinite(array).all() for array in (mean, relu_mean, channel_rms)):
            raise RankingError("the image features are not all finite; check the weights in MODEL.VLM.WEIGHTS.")
        seen = counts > 0
        inter_sim = inter_class_similarity(mean[seen], counts[seen], weighting)
        entropy = selectivity_entropy(relu_mean[seen])
        rank_h, rank_s = ordinal_rank(entropy), ordinal_rank(inter_sim)
        scores = score(rank_h, rank_s, lam)
        return cls(
            order=order(scores),
            score=scores,
            entropy=entropy,
            inter_sim=inter_sim,
            rank_h=rank_h,
            rank_s=rank_s,
            mean=mean,
            relu_mean=relu_mean,
            counts=counts,
            channel_rms=channel_rms,
            meta={**(meta or {}), "lambda": lam, "weighting": weighting, "eps": EPS},
        )

    @classmethod
    def load(cls, path: str | Path, channels: int | None = None) -> ChannelRanking:
        """Read a ranking; nothing in the file is unpickled.

        Args:
            path: what :meth:`save` wrote.
            channels: the width of the joint space that it must be made for; ``None`` takes any.

        Raises:
            RankingError: no such file, not such a file, a missing or misshapen array, an order that is no
                permutation, or another number of channels.
        """
        arrays = _read(Path(path))
        meta = _read_meta(arrays, path)
        if missing := [name for name in _LAYOUT if name not in arrays]:
            raise RankingError(f"channel ranking {path} lacks {', '.join(missing)}. {_REMEDY}")
        sizes = {"C": arrays["order"].size, "K": arrays["counts"].size}
        for name, (dtype, axes) in _LAYOUT.items():
            found, shape = arrays[name], tuple(sizes[axis] for axis in axes)
            if (found.dtype, found.shape) != (dtype, shape):
                raise RankingError(
                    f"channel ranking {path}: {name} is {found.dtype} {list(found.shape)}, expected "
                    f"{np.dtype(dtype)} {list(shape)} (C = {sizes['C']} channels, K = {sizes['K']} classes). {_REMEDY}"
                )
        if not np.array_equal(np.sort(arrays["order"]), np.arange(sizes["C"])):
            raise RankingError(
                f"channel ranking {path}: order does not hold each of the channels 0..{sizes['C'] - 1} once. {_REMEDY}"
            )
        if "classes" in meta and len(meta["classes"]) != sizes["K"]:
            raise RankingError(
                f"channel ranking {path} names {len(meta['classes'])} classes and counts {sizes['K']}. {_REMEDY}"
            )
        if channels is not None and channels != sizes["C"]:
            raise RankingError(
                f"channel ranking {path} is of {sizes['C']} channels ({meta.get('vlm', 'of an unknown model')}), but "
                f"the joint space of the configured MODEL.VLM has {channels}. {_REMEDY}"
            )
        return cls(**{name: arrays[name] for name in _LAYOUT}, meta=meta)

    def save(self, path: str | Path) -> Path:
        """Write the file in full or not at all; the same ranking always gives the same bytes.

        Args:
            path: should end in ``.npz``; its folder is made if needed.

        Returns:
            The path.
        """
        arrays = {name: getattr(self, name) for name in _LAYOUT}
        meta = np.array(json.dumps(self.meta, ensure_ascii=False))
        # A stream, because savez appends ".npz" to names that lack it.
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays, meta=meta)
        return Path(path)

    @property
    def dead(self) -> NDArray[np.bool_]:
        """[C] whether no class activates a channel."""
        return dead_channels(self.relu_mean)

    def split(self, rho: float) -> tuple[Indices, Indices]:
        """Return the semantic and the structural channels (Eq. 5 and 6).

        Args:
            rho: share of semantic channels, 0..1; rounded down to a whole number of channels.

        Raises:
            RankingError: ``rho`` is outside 0..1.
        """
        count = channel_count(rho, len(self.order))
        return self.order[:count], self.order[count:]

    def reranked(self, lam: float) -> ChannelRanking:
        """Return the ranking with another lambda (Eq. 4), from the stored ranks of H and S.

        Raises:
            RankingError: ``lam`` is outside 0..1.
        """
        scores = score(self.rank_h, self.rank_s, lam)
        return replace(self, order=order(scores), score=scores, meta={**self.meta, "lambda": lam})


def _read(path: Path) -> dict[str, NDArray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise RankingError(
            f"channel ranking {path} does not exist (MODEL.DR_SEG.SPSD.FILE). Make it with tools/rank_channels.py, or "
            "correct the path."
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RankingError(f"{path} cannot be read as a channel ranking ({error}). {_REMEDY}") from error


def _read_meta(arrays: dict[str, NDArray], path: str | Path) -> dict[str, Any]:
    try:
        meta = json.loads(str(arrays["meta"]))
    except (KeyError, ValueError):
        meta = None
    if not isinstance(meta, dict) or "lambda" not in meta:
        raise RankingError(
            f"channel ranking {path} has no readable provenance ('meta', JSON with at least 'lambda'). {_REMEDY}"
        )
    return meta
