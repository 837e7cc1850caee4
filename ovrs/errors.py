"""The errors that the person at the keyboard can mend, the words that their messages share, and how programs say them.

Whatever is no :class:`UserError` is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class UserError(ValueError):
    """Something that its user can mend: the message names the file or key, the value and the remedy."""


class ConfigError(UserError):
    """A configuration that cannot be used."""


class DataError(UserError):
    """Data or a data card that cannot be used."""


class VocabularyError(UserError):
    """A class list or a template that cannot be used."""


class WeightsError(UserError):
    """Weights that cannot be found, read or fitted to a model."""


class EvaluationError(UserError):
    """Labels, predictions or data sets that cannot be scored."""


class TrainingDiverged(UserError):
    """Loss or gradient is no longer a finite number."""


def choose(key: str, value: T, choices: Sequence[T]) -> T:
    """Return ``value`` if it is one of ``choices``.

    Args:
        key: the full name of the configuration key (or option), for the message.
        value: what it was set to.
        choices: the allowed values.

    Raises:
        ConfigError: it is none of them; the message lists them and, for a text, names the nearest.

    Examples:
        >>> choose("MODEL.LOSS.NAME", "bce", ["bce", "ce"])
        'bce'
    """
    if value in choices:
        return value
    hint = ""
    if isinstance(value, str):
        close = difflib.get_close_matches(value, [str(choice) for choice in choices], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"{key} must be one of {', '.join(map(str, choices))}, got {value!r}.{hint}")


def nearest(word: str, known: Iterable[str], count: int = 1) -> str:
    """Return the ``count`` known words most like ``word``, best first and comma-separated."""
    return ", ".join(difflib.get_close_matches(word, sorted(known), n=count, cutoff=0.0))


def shortened(items: Iterable[object], limit: int = 5) -> str:
    """Return the first items comma-separated, and how many more there are."""
    items = list(items)
    listed = ", ".join(str(item) for item in items[:limit])
    return listed if len(items) <= limit else f"{listed} and {len(items) - limit} more"


INTERRUPTED = 130  # exit code, as of any program that Ctrl-C ended


def is_expected(error: BaseException | None) -> bool:
    """Whether an error is the user's or the machine's, so that its message says all and a traceback adds nothing."""
    # PyTorch's error by its name: not every program that reports errors imports PyTorch.
    return isinstance(error, (UserError, OSError)) or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with one message and exit code 1 on an error that its user can mend, and 130 on Ctrl-C.

    The message also goes to the log files. Other errors are bugs and keep their traceback.
    """
    program = Path(sys.argv[0]).name
    try:
        yield
    except KeyboardInterrupt as error:
        message = str(error) or "stopped."
        _log_without_console(message)
        sys.stderr.write(f"{program}: {message}\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever reads the output, "| head", has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not is_expected(error):
            raise
        message = _message(error)
        _log_without_console(message)
        sys.exit(f"{program}: {message}")


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
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"the GPU's memory is too small for this ({text.splitlines()[0]}). Training: lower SOLVER.IMS_PER_BATCH or "
            "INPUT.CROP.SIZE, or set MODEL.VLM.RECOMPUTE to True; inference: lower TEST.IMS_PER_BATCH, "
            "TEST.SLIDING_WINDOW.BATCH_SIZE or MODEL.SEM_SEG_HEAD.CLASS_CHUNK; both: MODEL.PRECISION bf16."
        )
    if not text.startswith("Caught "):
        return text
    return text.rpartition(f"{type(error).__name__}: ")[2].strip()
