"""Loaders. What the training loader yields at iteration k depends on the seed and k alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetFromList, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ovrs.config import ConfigError
from ovrs.data.catalog import resolve_datasets
from ovrs.data.inspection import require_labelled
from ovrs.data.mapper import SegmentationMapper
from ovrs.data.order import SAMPLE_STREAM, VIEW_STREAM, TrainingOrder, numbered_generator
from ovrs.data.pairing import Record
from ovrs.data.reading import read_size
from ovrs.data.work import usable_cores
from ovrs.errors import DataError
from ovrs.files import replacing
from ovrs.inference import resolve_device
from ovrs.structures import Sample

SUBSET_NAME = "training_subset.txt"
_SUBSET_SEED = 0  # not the run's: runs with other seeds see the same images

_logger = logging.getLogger(__name__)


def build_train_loader(cfg: CfgNode, start_iteration: int = 0, seed: int | None = None) -> DataLoader:
    """Build the endless training loader.

    All records of ``DATASETS.TRAIN``, or a fixed ``DATASETS.TRAIN_FRACTION`` of each set (then listed in
    ``training_subset.txt`` of OUTPUT_DIR), are shuffled together, anew in every epoch; ``DATASETS.TRAIN_WEIGHTS``
    shows some sets more often (see :class:`ovrs.data.order.TrainingOrder`). Resuming with
    ``start_iteration`` k gives exactly the batches that an uninterrupted run gives from k on, with any
    number of workers; without aspect-ratio grouping, all processes together also see the same samples
    per iteration for any number of processes.

    Args:
        cfg: reads DATASETS, DATALOADER, INPUT, SEED and SOLVER.IMS_PER_BATCH (over all processes).
        start_iteration: number of iterations done before.
        seed: used where ``cfg.SEED`` is negative; the same in all processes.

    Returns:
        A loader of lists of samples, see :class:`SegmentationMapper`; this process's share of each batch.

    Raises:
        ConfigError: no training set, no seed, a fraction outside 0..1, weights that do not fit, or a batch size
            that the processes cannot share.
        DataError: a data set that cannot be found or paired, or has no labels, or classes that cannot be merged.
    """
    if not cfg.DATASETS.TRAIN:
        raise ConfigError("DATASETS.TRAIN is empty; name at least one data set, or the path of a data card.")
    if cfg.SEED >= 0:
        seed = cfg.SEED
    if seed is None:
        raise ConfigError(f"SEED is {cfg.SEED}, so a seed must be passed; set SEED from 0 to fix it in the config.")
    world_size = comm.get_world_size()
    total = cfg.SOLVER.IMS_PER_BATCH
    if total < world_size or total % world_size:
        raise ConfigError(f"SOLVER.IMS_PER_BATCH is {total}; it must be a multiple of the {world_size} processes.")

    if cfg.INPUT.FIXED_VIEWS < 0:
        raise ConfigError(f"INPUT.FIXED_VIEWS must be 0 (new ones every time) or more, got {cfg.INPUT.FIXED_VIEWS}.")

    names = resolve_datasets(cfg.DATASETS.TRAIN, cfg.DATASETS.ROOT)
    fraction = cfg.DATASETS.TRAIN_FRACTION
    sets = [draw_fraction(DatasetCatalog.get(name), fraction) for name in names]
    records = [record for of_set in sets for record in of_set]
    if fraction < 1 and comm.is_main_process():
        with replacing(Path(cfg.OUTPUT_DIR, SUBSET_NAME)) as temporary:
            temporary.write_text("".join(f"{record['file_name']}\n" for record in records), encoding="utf-8")
    for name, of_set in zip(names, sets, strict=True):
        if any("sem_seg_file_name" not in record for record in of_set):
            raise DataError(f"data set {name} has no labels; DATASETS.TRAIN needs a split with labels.")
        require_labelled(name, of_set, MetadataCatalog.get(name).card)
    order = TrainingOrder([len(of_set) for of_set in sets], seed, cfg.DATASETS.TRAIN_WEIGHTS)
    for name, of_set, places in zip(names, sets, order.places, strict=True):
        share = 100 * places / len(order)
        _logger.info("Training on %d images of %s: %.1f %% of the samples.", len(of_set), name, share)

    stored = DatasetFromList(records, copy=False)
    batches = TrainingBatches(
        order,
        batch_size=total // world_size,
        start_iteration=start_iteration,
        rank=comm.get_rank(),
        world_size=world_size,
        is_wide=_Orientations(stored) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None,
    )
    mapper = SegmentationMapper(cfg, True, dataset_names=names)
    samples = _TrainingSamples(stored, mapper, seed, len(order), cfg.INPUT.FIXED_VIEWS)
    return _build(cfg, samples, batch_sampler=batches)


def draw_fraction(records: Sequence[Record], fraction: float) -> list[Record]:
    """Return a share of the records, in their order: always the same ones, and a larger share contains a smaller.

    Raises:
        ConfigError: ``fraction``, the value of ``DATASETS.TRAIN_FRACTION``, is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"DATASETS.TRAIN_FRACTION must be above 0 and at most 1, got {fraction}.")
    order = np.random.default_rng(_SUBSET_SEED).permutation(len(records))
    kept = order[: max(round(fraction * len(records)), 1)]
    return [records[index] for index in sorted(kept)]


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Build the loader of one test set; each process takes a contiguous share, nothing is dropped or repeated.

    Args:
        cfg: reads DATASETS.ROOT, DATALOADER, INPUT and TEST.IMS_PER_BATCH (per process).
        dataset_name: what :func:`resolve_datasets` takes.

    Returns:
        A loader of lists of samples, see :class:`SegmentationMapper`.

    Raises:
        DataError: the data set cannot be found or paired.
    """
    names = resolve_datasets([dataset_name], cfg.DATASETS.ROOT)
    records = DatasetFromList(DatasetCatalog.get(names[0]), copy=False)
    mapper = SegmentationMapper(cfg, False, dataset_names=names)
    return _build(
        cfg, _TestSamples(records, mapper), sampler=InferenceSampler(len(records)), batch_size=cfg.TEST.IMS_PER_BATCH
    )


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """Endless batches of (position, index): the position in the training order and the record there.

    The process of rank r takes the positions r, r + world_size, ... With grouping, images wait until a batch of
    their orientation is full, so resuming replays the grouping from the start (indices only, no pixels).

    Args:
        order: what all processes together show; the same in each.
        batch_size: of this process.
        start_iteration: number of batches to leave out.
        rank: of this process.
        world_size: number of processes.
        is_wide: tells by index whether a record's image is wider than high; None for no grouping.
    """

    def __init__(
        self,
        order: TrainingOrder,
        batch_size: int,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        is_wide: Callable[[int], bool] | None = None,
    ) -> None:
        self._order = order
        self._batch_size = batch_size
        self._start = start_iteration
        self._rank = rank
        self._world_size = world_size
        # a batch of one cannot mix orientations
        self._is_wide = is_wide if batch_size > 1 else None

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        if self._is_wide is None:
            stream = self._stream(self._rank + self._start * self._batch_size * self._world_size)
            while True:
                yield [next(stream) for _ in range(self._batch_size)]

        waiting: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        to_skip = self._start
        for position, index in self._stream(self._rank):
            group = waiting[self._is_wide(index)]
            group.append((position, index))
            if len(group) == self._batch_size:
                if to_skip:
                    to_skip -= 1
                else:
                    yield group.copy()
                group.clear()

    def _stream(self, position: int) -> Iterator[tuple[int, int]]:
        size = len(self._order)
        epoch, indices = -1, np.empty(0, np.int64)
        while True:
            if position // size != epoch:
                epoch = position // size
                indices = self._order.epoch(epoch)
            yield position, int(indices[position % size])
            position += self._world_size


class _Orientations:
    """Whether images are wider than high; each header is read once, when first asked for."""

    def __init__(self, records: DatasetFromList) -> None:
        self._records = records
        self._known: dict[int, bool] = {}

    def __call__(self, index: int) -> bool:
        if index not in self._known:
            height, width = read_size(self._records[index]["file_name"])
            self._known[index] = width > height
        return self._known[index]


class _TrainingSamples(Dataset):
    def __init__(
        self, records: DatasetFromList, mapper: Callable[..., Sample], seed: int, epoch: int, fixed_views: int
    ) -> None:
        self._records, self._mapper, self._seed = records, mapper, seed
        self._epoch, self._fixed_views = epoch, fixed_views

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        position, index = place
        stream = (SAMPLE_STREAM, position)
        if self._fixed_views:
            stream = (VIEW_STREAM, index, position // self._epoch % self._fixed_views)
        return self._mapper(self._records[index], numbered_generator(self._seed, *stream))


class _TestSamples(Dataset):
    def __init__(self, records: DatasetFromList, mapper: Callable[[Record], Sample]) -> None:
        self._records, self._mapper = records, mapper

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        return self._mapper(self._records[index])


def _build(cfg: CfgNode, dataset: Dataset, **options: Any) -> DataLoader:
    workers, cores = cfg.DATALOADER.NUM_WORKERS, usable_cores()
    if workers > cores:
        _say_capped(workers, cores)
        workers = cores
    return DataLoader(
        dataset,
        num_workers=workers,
        collate_fn=_as_list,
        worker_init_fn=limit_threads,
        prefetch_factor=cfg.DATALOADER.PREFETCH_FACTOR if workers else None,
        persistent_workers=workers > 0,
        pin_memory=torch.device(resolve_device(cfg.MODEL.DEVICE, fall_back=True)).type == "cuda",
        # a generator of its own: otherwise every start of the loader draws from torch's global one
        generator=torch.Generator(),
        **options,
    )


@lru_cache(maxsize=1)
def _say_capped(workers: int, cores: int) -> None:
    _logger.info("DATALOADER.NUM_WORKERS is %d, but there are %d cores: as many workers read the data.", workers, cores)


def _as_list(samples: list[Sample]) -> list[Sample]:
    return samples


def limit_threads(worker: int) -> None:
    """Give a loader's worker one thread: the workers are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
