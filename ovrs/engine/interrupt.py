"""Stopping a training between two iterations."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

import torch
from detectron2.utils import comm

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; what a cluster sends before it takes the machine away


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, and did so in good order."""


class StopRequest:
    """Within the block, notes the first request to end the process instead of dying of it; the second one ends it.

    Signals reach the main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._requested = False

    def __enter__(self) -> StopRequest:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether any process was asked to stop; all processes call it together and get the same answer."""
        if comm.get_world_size() == 1:
            return self._requested
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        requested = torch.tensor(float(self._requested), device=device)
        torch.distributed.all_reduce(requested)
        return bool(requested)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._requested = True
        signal.signal(number, signal.default_int_handler)
        logger.info("Stopping after this iteration, with a checkpoint. Once more ends the process at once.")
