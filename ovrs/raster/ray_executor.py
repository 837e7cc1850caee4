"""Reading and scoring on a Ray cluster: tasks read, actors hold models; the process that started the run writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovrs.errors import UserError
from ovrs.raster.executors import ATTEMPTS, Batch, Item, Read, ahead, read_or_say, score_windows
from ovrs.raster.model import ModelInfo, WindowModel
from ovrs.raster.options import require
from ovrs.raster.reading import Block

log = logging.getLogger(__name__)

_READS_AHEAD = 16
_START_SECONDS = 600.0  # that the first worker may take to load its model


class RayExecutor:
    """Reads and scores on the nodes of a Ray cluster, which all see the rasters under the same paths.

    A node that is lost costs the passes that were on it: its reads are repeated by Ray, its passes go to other workers,
    and a new worker starts as soon as the cluster has room for one.

    Args:
        load: builds the model on a node; can be pickled.
        workers: models; 0: one per GPU of the cluster, or one per node without GPUs.
        address: of the cluster; "" for the one that this process is in, or a new one on this machine.
    """

    def __init__(self, load: Callable[[int], WindowModel], workers: int = 0, address: str = "") -> None:
        require("--executor ray", "ray", extra="ray")
        import ray

        self._ray = ray
        if not ray.is_initialized():
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.WARNING)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        self._count = workers or gpus or sum(node["Alive"] for node in ray.nodes())
        self._load = ray.put(load)
        self._worker = ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_restarts=0)(_Worker)
        self._read = ray.remote(num_cpus=0, num_returns=2, max_retries=-1)(_read)
        self._starting: dict[Any, Any] = {}  # {what tells that a worker is ready: the worker}
        self._passes: dict[Any, int] = {}  # {ready worker: passes that it has not returned}
        for _ in range(self._count):
            self._start()
        self._gather()
        self.info: ModelInfo = ray.get(next(iter(self._passes)).info.remote())

    def read(self, work: Iterable[tuple[Item, Block | None]]) -> Iterator[tuple[Item, Read | None]]:
        """See :class:`Executor`; the windows stay where they were read."""
        for (item, _), futures in ahead(work, self._submit_read, _READS_AHEAD + 2 * self._count):
            if futures is None:
                yield item, None
            else:
                columns, error = self._ray.get(futures[0])
                yield item, (columns, futures[1], error)

    def score(self, batches: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Tensor]]:
        """See :class:`Executor`."""
        for (item, batch), started in ahead(batches, lambda work: self._submit(work[1]), 2 * self._count):
            yield item, torch.empty(0) if started is None else self._result(batch, *started)

    def close(self) -> None:
        """End the workers; the cluster stays."""
        for worker in [*self._passes, *self._starting.values()]:
            self._ray.kill(worker)
        self._passes.clear()
        self._starting.clear()

    def _submit_read(self, item: tuple[Any, Block | None]) -> list[Any] | None:
        return None if item[1] is None else self._read.remote(item[1])

    def _submit(self, batch: Batch) -> tuple[Any, Any] | None:
        """Give a pass to the worker that has the fewest; return it and what will hold the result."""
        if not batch:
            return None
        self._gather()
        worker = min(self._passes, key=self._passes.get)
        self._passes[worker] += 1
        handles = list(dict.fromkeys(handle for handle, _ in batch))
        places = [(handles.index(handle), number) for handle, number in batch]
        return worker, worker.score.remote(places, *handles)

    def _result(self, batch: Batch, worker: Any, future: Any) -> Tensor:
        for left in reversed(range(ATTEMPTS)):
            try:
                scores = self._ray.get(future)
            except self._ray.exceptions.RayActorError:
                self._lose(worker)
                if not left:
                    raise
                worker, future = self._submit(batch)
            else:
                self._passes[worker] -= 1
                return torch.from_numpy(np.array(scores))
        raise AssertionError

    def _lose(self, worker: Any) -> None:
        if self._passes.pop(worker, None) is not None:
            log.warning("a worker was lost; its passes are repeated by others")
            self._start()

    def _start(self) -> None:
        worker = self._worker.remote(self._load, torch.get_num_threads())
        self._starting[worker.info.remote()] = worker

    def _gather(self) -> None:
        """Take in the workers that got ready, and wait for one if there is none."""
        failure = None
        while self._starting:
            ready, _ = self._ray.wait(list(self._starting), timeout=0 if self._passes else _START_SECONDS)
            if not ready:
                break
            worker = self._starting.pop(ready[0])
            try:
                self._ray.get(ready[0])
            except self._ray.exceptions.RayError as error:
                failure = error
            else:
                self._passes[worker] = 0
        if not self._passes:
            cause = failure or f"none was ready within {_START_SECONDS:.0f} seconds; look at: ray status"
            raise UserError(f"no worker of the Ray cluster could start: {cause}")


def _read(block: Block) -> tuple[tuple[tuple[int, ...], str], np.ndarray | None]:
    columns, windows, error = read_or_say(block)
    return (columns, error), windows


class _Worker:
    """Holds a model on a node."""

    def __init__(self, load: Callable[[int], WindowModel], threads: int) -> None:
        torch.set_num_threads(threads)  # the caller's number: sums in another number of pieces round differently
        self._model = load(0)  # Ray shows every worker only its own GPU

    def info(self) -> ModelInfo:
        return self._model.info

    def score(self, places: list[tuple[int, int]], *read: np.ndarray) -> np.ndarray:
        return score_windows(self._model, [read[handle][number] for handle, number in places]).numpy()
