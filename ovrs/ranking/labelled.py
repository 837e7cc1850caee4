"""The images and labels that rankings and their experiments read, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from ovrs.data import DataError, Record, resolve_datasets


def labelled_set(cfg: CfgNode, dataset: str) -> tuple[str, list[Record]]:
    """Return the registered name of a data set and its records, sorted by stem.

    Args:
        cfg: reads DATASETS.ROOT.
        dataset: what :func:`ovrs.data.resolve_datasets` takes.

    Raises:
        DataError: the data set cannot be found or paired, or has no labels.
    """
    (name,) = resolve_datasets([dataset], cfg.DATASETS.ROOT)
    if not MetadataCatalog.get(name).sem_seg_root:
        raise DataError(f"data set {name} has no labels; channels are ranked and tested on a split with labels.")
    return name, DatasetCatalog.get(name)


def progress(records: Sequence[Record], task: str) -> Iterable[Record]:
    """Yield the records under a bar with the time left; a log file gets a line a minute."""
    return tqdm(records, desc=task, unit="image", mininterval=0.2 if sys.stderr.isatty() else 60)
