"""From a configuration and a data set to a channel ranking with its provenance."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tabulate import tabulate

import ovrs
from ovrs.errors import shortened
from ovrs.heads.dr_seg.ranking_file import ChannelRanking
from ovrs.ranking.collect import SHORTER_SIDE, RankingOptions, collect
from ovrs.ranking.labelled import labelled_set
from ovrs.ranking.tower import FrozenTower
from ovrs.zoo import find

logger = logging.getLogger(__name__)

_LISTED = 12  # channels in a line


def rank_channels(
    cfg: CfgNode, dataset: str, options: RankingOptions | None = None, tower: FrozenTower | None = None
) -> ChannelRanking:
    """Rank the channels of the configured vision-language model on a labelled data set (SPSD).

    Args:
        cfg: reads MODEL.VLM, MODEL.PIXEL_MEAN/STD, MODEL.DEVICE and DATASETS.ROOT; not MODEL.WEIGHTS.
        dataset: the training split; what :func:`ovrs.data.resolve_datasets` takes.
        options: default: what ``MODEL.DR_SEG.SPSD`` says.
        tower: default: built from ``cfg``.

    Raises:
        DataError: the data set cannot be read, or has no labels.
        RankingError: labels of fewer than two classes, or features that are not finite.
    """
    options = options or RankingOptions.from_config(cfg)
    name, records = labelled_set(cfg, dataset)
    metadata = MetadataCatalog.get(name)
    tower = tower or FrozenTower.from_config(cfg)
    found = collect(tower, records, metadata.card, options)
    stems = "".join(f"{record['stem']}\n" for record in records)
    node = cfg.MODEL.VLM
    meta = {
        "dataset": name,
        "split": metadata.split,
        "classes": list(metadata.class_strings),
        "images": len(records),
        "image_list_sha256": hashlib.sha256(stems.encode()).hexdigest(),
        "cells": found.cells.tolist(),
        "vlm": Path(node.ARCH).name,
        "vlm_weights": node.WEIGHTS if find(node.WEIGHTS) else Path(node.WEIGHTS).name,
        "vlm_sha256": tower.sha256,
        "input_size": tower.side,
        "shorter_side": SHORTER_SIDE,
        "labelling": options.labelling,
        "purity": options.purity,
        "n_p": options.n_p,
        "seed": options.seed,
        "version": ovrs.__version__,
    }
    ranking = ChannelRanking.from_class_means(
        found.mean,
        found.relu_mean,
        found.counts,
        found.channel_rms,
        lam=options.lam,
        weighting=options.weighting,
        meta=meta,
    )
    _warn(ranking)
    return ranking


def save_ranking(cfg: CfgNode, dataset: str, path: str | Path) -> None:
    """Rank the channels as ``cfg`` says and write the file that the DR-Seg head reads."""
    rank_channels(cfg, dataset).save(path)


def describe_ranking(ranking: ChannelRanking) -> str:
    """Return a page for people: where the ranking comes from, its classes, and what took no part in it."""
    meta = defaultdict(lambda: "unknown", ranking.meta)
    rows = zip(_names(ranking), ranking.counts, ranking.meta.get("cells", ranking.counts), strict=True)
    table = tabulate(rows, headers=["class", "prototypes", "cells"], intfmt=",")
    dead = np.flatnonzero(ranking.dead)
    lines = [
        f"{len(ranking.order)} channels of {meta['vlm']}, ranked on {meta['images']} images of {meta['dataset']}.",
        f"lambda {meta['lambda']}, weighting {meta['weighting']}, labelling {meta['labelling']}, "
        f"purity {meta['purity']}, prototypes per class {meta['n_p'] or 'all'}.",
        f"Classes left out, without any cell: {', '.join(_empty(ranking)) or 'none'}.",
        f"Classes with fewer cells than prototypes asked for: {', '.join(_short(ranking)) or 'none'}.",
        f"Dead channels, which no class activates: {shortened(dead, _LISTED) or 'none'}.",
        f"From the most semantic channel on: {shortened(ranking.order, _LISTED)}.",
    ]
    return table + "\n\n" + "\n".join(lines)


def _warn(ranking: ChannelRanking) -> None:
    if empty := _empty(ranking):
        logger.warning("Classes without any cell take no part in the ranking: %s.", ", ".join(empty))
    if short := _short(ranking):
        wanted = ranking.meta["n_p"]
        logger.warning("Classes with fewer than %d cells, all of which are kept: %s.", wanted, ", ".join(short))
    if ranking.dead.any():
        logger.warning("%d dead channels count as the least selective ones.", ranking.dead.sum())


def _names(ranking: ChannelRanking) -> list[str]:
    return ranking.meta.get("classes") or [f"class {k}" for k in range(len(ranking.counts))]


def _empty(ranking: ChannelRanking) -> list[str]:
    return [name for name, count in zip(_names(ranking), ranking.counts, strict=True) if not count]


def _short(ranking: ChannelRanking) -> list[str]:
    wanted = ranking.meta.get("n_p", 0)
    return [name for name, count in zip(_names(ranking), ranking.counts, strict=True) if 0 < count < wanted]
