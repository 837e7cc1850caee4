"""How training goes, for the people who wait for it."""

from __future__ import annotations

import logging
import time
from collections import deque
from datetime import timedelta
from statistics import median

import torch
from detectron2.engine.train_loop import HookBase

logger = logging.getLogger(__name__)

PERIOD = 20  # iterations between two lines, and over which they average
_FIRST = (1, 2, 5, 10)  # earlier lines, since a long run should say so at once


class PrintProgress(HookBase):
    """Logs loss, speed and the time that is left after the first iterations and then every ``PERIOD``."""

    def before_train(self) -> None:  # noqa: D102
        self._seconds: deque[float] = deque(maxlen=PERIOD)

    def before_step(self) -> None:  # noqa: D102
        self._start = time.perf_counter()

    def after_step(self) -> None:  # noqa: D102
        self._seconds.append(time.perf_counter() - self._start)
        trainer, done = self.trainer, self.trainer.iter + 1
        if done - trainer.start_iter in _FIRST or done % PERIOD == 0 or done == trainer.max_iter:
            logger.info("%s", self._line(done))

    def _line(self, done: int) -> str:
        trainer, seconds = self.trainer, median(self._seconds)
        history = trainer.storage.histories()
        parts = [
            f"iteration {done} of {trainer.max_iter}",
            f"loss {history['total_loss'].median(min(PERIOD, len(self._seconds))):.4g}",
            f"rate {history['lr'].latest():.3g}",
            f"{seconds:.3g} s each, {history['data_time'].latest():.2g} s of them for data",
        ]
        if torch.cuda.is_available():
            parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        if done < trainer.max_iter:
            parts.append(f"{timedelta(seconds=round(seconds * (trainer.max_iter - done)))} left without evaluations")
        return "; ".join(parts)
