"""The modules of users that a configuration names: they register heads, options and data sets of their own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from detectron2.config import CfgNode

from ovrs.errors import ConfigError


def import_modules(cfg: CfgNode) -> None:
    """Import what ``IMPORTS`` of a configuration names, unless this process has done so.

    ``load_config`` does it too; a process that was handed a loaded configuration calls this first.

    Raises:
        ConfigError: there is no such module or file.
    """
    import_all(cfg.IMPORTS, "IMPORTS")


def import_all(names: Iterable[str], where: str) -> None:
    """Import modules by name or by the path of their .py file; ``where`` starts the message of an error."""
    for name in names:
        if name.endswith(".py"):
            _import_file(Path(name), where)
        else:
            _import_module(name, where)


def _import_module(name: str, where: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Not found may be the module itself or its package; whatever it imports in turn is its own affair.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"{where}: there is no module {name}. Install it, add its folder to PYTHONPATH, or name its .py file."
        ) from None


def _import_file(file: Path, where: str) -> None:
    if not file.is_file():
        raise ConfigError(f"{where}: {file} does not exist; a .py file is looked up beside the YAML that names it.")
    file = file.resolve()
    name = f"ovrs_imports_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}_{file.stem}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
