"""The stream of windows of many rasters: read ahead, scored in full batches, blended and written in order."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from tqdm import tqdm

from ovrs.errors import UserError
from ovrs.raster.executors import Batch, Executor, Read
from ovrs.raster.job import Job, Strip
from ovrs.raster.reading import Block

T = TypeVar("T")
log = logging.getLogger(__name__)

_AHEAD = 2  # batches that may be scored before they are blended
_FINISHING = 4  # maps whose windows are done and whose files may be waiting

Start = Callable[[], Job]


class _Raster:
    """A raster in the stream: its job, once begun, and what became of it."""

    def __init__(self, name: str) -> None:
        self.name, self.error = name, ""
        self.job: Job | None = None
        self.given_up = False  # known to the reading side before its error reaches the writing side
        self.began = time.monotonic()

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Keep what its user can mend as this raster's error, so that the others go on."""
        try:
            yield
        except UserError as error:
            self.fail(str(error))
        except OSError as error:
            self.fail(f"{error.filename or self.name}: {error.strerror}; what is done stays, go on with --resume.")

    def fail(self, error: str) -> None:
        self.error, self.given_up = self.error or error, True

    def finish(self) -> dict[str, Any]:
        """Write the files at the end, unless something failed; return the raster's part of the report."""
        outcome: dict[str, Any] = {"input": self.name, "status": "done"}
        if not self.error and self.job is not None:
            with self.trying():
                outcome["status"] = "skipped" if self.job.finished else "done"
                outcome |= self.job.finished or self.job.finish()
        if self.error:
            outcome = {"input": self.name, "status": "failed", "error": self.error}
        return outcome | {"seconds": round(time.monotonic() - self.began, 1)}


@dataclass(frozen=True)
class _Step:
    """What happens next to a raster: a window's scores are added, a strip is closed, an error is told, or its end."""

    raster: _Raster
    strip: Strip | None = None
    column: int | None = None
    error: str = ""


def run(rasters: Iterable[tuple[str, Start]], executor: Executor) -> Iterator[dict[str, Any]]:
    """Map rasters, one after another in one stream.

    Args:
        rasters: (name, what begins its job).
        executor: reads and scores.

    Yields:
        What the report says of every raster: ``input``, ``status`` (``done``, ``skipped`` because an earlier run did
        it, ``failed``), ``error``, ``seconds`` and what :meth:`Job.finish` returns.
    """
    with tqdm(unit="window", disable=None) as bar, ThreadPoolExecutor(1, "finishing") as finisher:
        batches = _batches(executor.read(_work(rasters, bar)), executor.info.batch_size)
        finishing: deque[Future[dict[str, Any]]] = deque()
        with _buffered(executor.score(batches), _AHEAD) as scored:
            for steps, scores in scored:
                windows = iter(scores)
                for step in steps:
                    if step.strip is None and not step.error:
                        finishing.append(finisher.submit(step.raster.finish))
                        while len(finishing) > _FINISHING:
                            yield finishing.popleft().result()
                        continue
                    _take(step, windows)
                    if step.column is None and step.strip is not None:
                        bar.update(len(step.strip.columns))
        while finishing:
            yield finishing.popleft().result()


def _take(step: _Step, windows: Iterator[Tensor]) -> None:
    raster = step.raster
    scores = None if step.column is None else next(windows)
    if step.error:
        raster.fail(step.error)
    if raster.error:
        return
    with raster.trying():
        if scores is not None:
            raster.job.add(step.strip, step.column, scores)
        else:
            raster.job.close(step.strip)


def _work(rasters: Iterable[tuple[str, Start]], bar: tqdm) -> Iterator[tuple[_Step, Block | None]]:
    """Yield what is to be read, and between it when a strip and a raster are complete."""
    for name, start in rasters:
        raster = _Raster(name)
        with raster.trying():
            raster.job = start()
        if raster.job is not None and not raster.job.finished:
            strips = list(raster.job.strips())
            bar.total = (bar.total or 0) + sum(len(strip.columns) for strip in strips)
            for strip in strips:
                for block in raster.job.blocks(strip):
                    if raster.given_up:
                        break
                    yield _Step(raster, strip), block
                yield _Step(raster, strip), None
        yield _Step(raster), None


def _batches(reads: Iterable[tuple[_Step, Read | None]], size: int) -> Iterator[tuple[list[_Step], Batch]]:
    """Yield steps, and the windows whose scores they take; batches go over the borders of strips and rasters."""
    steps: list[_Step] = []
    batch: list[tuple[Any, int]] = []
    for step, read in reads:
        if read is None:
            steps.append(step)
        else:
            columns, handle, error = read
            if error:
                step.raster.given_up = True
                steps.append(_Step(step.raster, step.strip, error=error))
            for number, column in enumerate(columns):
                steps.append(_Step(step.raster, step.strip, column))
                batch.append((handle, number))
                if len(batch) == size:
                    yield steps, batch
                    steps, batch = [], []
        if steps and not batch:
            yield steps, []
            steps = []
    yield steps, batch


@contextmanager
def _buffered(items: Generator[T, None, None], depth: int) -> Iterator[Iterator[T]]:
    """Run a generator in a thread, up to ``depth`` items ahead. Leaving the block ends it."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    leaving = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not leaving.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    break
            put("end", None)
        except BaseException as error:  # handed over, whatever it is: it is raised in the thread that asks
            put("error", error)
        finally:
            items.close()

    def taken() -> Iterator[T]:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    thread = threading.Thread(target=work, name="scoring", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        leaving.set()
        thread.join()
