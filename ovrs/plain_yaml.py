"""Reading YAML files that people write: plain values only, and every failure said with the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_plain_yaml(path: Path, kind: str, error: type[Exception]) -> Any:
    """Return the content of a plain YAML file.

    Args:
        path: the file.
        kind: what the file is to its reader, for the messages: "config file".
        error: what is raised, the error class of the calling room.

    Returns:
        What YAML makes of the text; None for an empty file.

    Raises:
        error: the file is missing, cannot be read as text, is not YAML, or has tags that would build objects.
    """
    try:
        return _safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{kind} {path} does not exist; correct the path.") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{kind} {path} cannot be read as text: {problem}.") from None
    except yaml.constructor.ConstructorError as problem:
        raise error(f"{path}: only plain YAML is read, no tags that build objects. {problem.problem}.") from None
    except yaml.YAMLError as problem:
        raise error(f"{path}: not valid YAML: {problem}") from None


def _safe_load(text: str) -> Any:
    """``yaml.safe_load`` by libyaml, ten times as fast, where PyYAML was built with it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
