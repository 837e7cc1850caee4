"""Who reads windows and who scores them. Results come in the order of the work, whoever did it and when."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ovrs.errors import UserError
from ovrs.raster.model import ModelInfo, WindowModel
from ovrs.raster.reading import Block, read_block

log = logging.getLogger(__name__)

ATTEMPTS = 3  # at a pass whose worker is lost

Item = TypeVar("Item")
Handle = TypeVar("Handle")

# What a read gives: the columns of windows that show data, a handle of the windows, and an error or "".
Read = tuple[tuple[int, ...], Any, str]
# What a pass is made of: (handle, number of the window in it).
Batch = Sequence[tuple[Any, int]]


class Executor(Protocol):
    """Reads and scores. Both may work ahead; both give results in order."""

    info: ModelInfo

    def read(self, work: Iterable[tuple[Item, Block | None]]) -> Iterator[tuple[Item, Read | None]]:
        """Read blocks; ``None`` passes through."""
        ...

    def score(self, batches: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Tensor]]:
        """Score batches of at most ``info.batch_size`` windows."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


def ahead(work: Iterable[Item], submit: Callable[[Item], Handle], depth: int) -> Iterator[tuple[Item, Handle]]:
    """Yield (item, what ``submit`` gave for it) in order, having submitted ``depth`` items more than were asked for."""
    waiting: deque[tuple[Item, Handle]] = deque()
    for item in work:
        waiting.append((item, submit(item)))
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting


def read_or_say(block: Block) -> Read:
    """Read a block; an error that its user can mend is part of the result."""
    try:
        windows, columns = read_block(block)
    except UserError as error:
        return (), None, str(error)
    return columns, windows, ""


def score_windows(model: WindowModel, windows: Sequence[np.ndarray]) -> Tensor:
    """Score windows in a pass of fixed size: no result depends on how many there were."""
    batch = np.zeros((model.info.batch_size, *windows[0].shape), np.uint8)
    for place, window in zip(batch, windows, strict=False):
        place[:] = window
    with torch.inference_mode():
        return model.score(torch.from_numpy(batch))[: len(windows)].float().cpu()


class LocalExecutor:
    """Threads read, this process scores.

    Args:
        model: the model.
        readers: threads that read.
    """

    def __init__(self, model: WindowModel, readers: int = 4) -> None:
        self.info = model.info
        self._model, self._readers = model, readers
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")

    def read(self, work: Iterable[tuple[Item, Block | None]]) -> Iterator[tuple[Item, Read | None]]:
        """See :class:`Executor`."""
        for (item, _), future in ahead(work, self._submit_read, 2 * self._readers):
            yield item, None if future is None else future.result()

    def _submit_read(self, item: tuple[Any, Block | None]) -> Future[Read] | None:
        return None if item[1] is None else self._pool.submit(read_or_say, item[1])

    def score(self, batches: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Tensor]]:
        """See :class:`Executor`."""
        for item, batch in batches:
            yield item, score_windows(self._model, _pick(batch)) if batch else torch.empty(0)

    def close(self) -> None:
        """See :class:`Executor`."""
        self._pool.shutdown(cancel_futures=True)


class ProcessExecutor(LocalExecutor):
    """Threads read, several processes score, each with a model of its own.

    A process that is lost costs the passes it had; they are done again by new ones.

    Args:
        load: builds the model in a process, given its number; can be pickled.
        workers: processes.
        readers: threads that read.
    """

    def __init__(self, load: Callable[[int], WindowModel], workers: int, readers: int = 4) -> None:
        self._load, self._workers, self._readers = load, workers, readers
        self._processes = self._start()
        self.info = self._processes.submit(_info).result()
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")

    def score(self, batches: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Tensor]]:
        """See :class:`Executor`."""
        for (item, batch), future in ahead(batches, lambda work: self._submit(work[1]), 2 * self._workers):
            yield item, self._result(batch, future)

    def close(self) -> None:
        """See :class:`Executor`."""
        super().close()
        self._processes.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
        numbers = context.Queue()
        for number in range(self._workers):
            numbers.put(number)
        # As many threads as here, however many workers there are: sums in another number of pieces round differently.
        threads = torch.get_num_threads()
        return ProcessPoolExecutor(self._workers, context, _start_worker, (self._load, numbers, threads))

    def _submit(self, batch: Batch) -> Future[np.ndarray] | None:
        if not batch:
            return None
        windows = _pick(batch)
        try:
            return self._processes.submit(_score, windows)
        except BrokenProcessPool:
            self._restart()
            return self._processes.submit(_score, windows)

    def _result(self, batch: Batch, future: Future[np.ndarray] | None) -> Tensor:
        if future is None:
            return torch.empty(0)
        for left in reversed(range(ATTEMPTS)):
            try:
                return torch.from_numpy(future.result())
            except BrokenProcessPool:
                if not left:
                    raise
                future = self._submit(batch)  # starts the processes again unless that was done
        raise AssertionError

    def _restart(self) -> None:
        log.warning("a worker process was lost; starting again and repeating its passes")
        self._processes.shutdown(wait=False, cancel_futures=True)
        self._processes = self._start()


_model: WindowModel  # of a worker process


def _start_worker(load: Callable[[int], WindowModel], numbers: multiprocessing.Queue, threads: int) -> None:
    global _model
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C ends the parent, which ends its workers
    torch.set_num_threads(threads)
    _model = load(numbers.get())


def _info() -> ModelInfo:
    return _model.info


def _score(windows: Sequence[np.ndarray]) -> np.ndarray:
    return score_windows(_model, windows).numpy()


def _pick(batch: Batch) -> list[np.ndarray]:
    return [windows[number] for windows, number in batch]
