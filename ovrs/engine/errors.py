"""The errors that the person at the keyboard can mend, and how scripts report them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ovrs.config import ConfigError
from ovrs.data import DataError
from ovrs.errors import TrainingDiverged, UserError, VocabularyError, WeightsError
from ovrs.evaluation import EvaluationError

logger = logging.getLogger(__name__)


# Their messages name the file or key and the remedy, so a traceback adds nothing.
USER_ERRORS = (
    ConfigError,
    DataError,
    EvaluationError,
    UserError,
    VocabularyError,
    WeightsError,
    TrainingDiverged,
    OSError,
)


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with one message and exit code 1 on an error that its user can mend.

    The message also goes to the log files. Other errors are bugs and keep their traceback.
    """
    try:
        yield
    except USER_ERRORS as error:
        message = _message(error)
        _log_without_console(message)
        sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def _log_without_console(message: str) -> None:
    """Log an error to all handlers but those of the console, where the end of the process says it anyway."""
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, message, (), None)
    console = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    source: logging.Logger | None = logger
    while source is not None:
        for handler in source.handlers:
            if getattr(handler, "stream", None) not in console and record.levelno >= handler.level:
                handler.handle(record)
        source = source.parent if source.propagate else None


def _message(error: Exception) -> str:
    """Return what the error says; one from a loader's worker process carries that process's traceback in front."""
    text = str(error)
    if not text.startswith("Caught "):
        return text
    return text.rpartition(f"{type(error).__name__}: ")[2].strip()
