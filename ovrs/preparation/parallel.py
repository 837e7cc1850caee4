"""One function over many items, on all cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from ovrs.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # items handed out per worker: enough to keep it busy, few enough to stop soon


def in_processes(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield ``function(item)`` for all items, in the order in which they are ready.

    After a failure nothing new is begun; what runs already is finished and yielded before the failure is raised.

    Args:
        function: picklable.
        items: picklable.
        workers: number of processes; 1 stays in this one.

    Raises:
        DataError: a process died.
        Exception: what the function raised first.
    """
    if workers == 1:
        yield from map(function, items)
        return
    remaining = iter(items)
    running: set[Future[Result]] = set()
    failure: Exception | None = None
    with ProcessPoolExecutor(workers, mp_context=_context()) as pool:
        while True:
            if failure is None:
                running |= {pool.submit(function, item) for item in islice(remaining, workers * _AHEAD - len(running))}
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                error = future.exception()
                if error is None:
                    yield future.result()
                elif isinstance(error, BrokenProcessPool):
                    raise DataError(
                        "a worker process was ended from outside, mostly for want of memory; run the command again "
                        "with fewer --workers. What is finished stays."
                    ) from None
                elif isinstance(error, Exception):
                    failure = failure or error
                else:
                    raise error
    if failure is not None:
        raise failure


def _context() -> multiprocessing.context.BaseContext:
    """Fork from a server that has this package loaded and no threads; elsewhere start afresh."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ovrs.preparation"])
    return context
