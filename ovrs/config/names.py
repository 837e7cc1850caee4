"""What a configuration may be called: the path of a file, a shipped recipe, or a row of a paper's table.

Examples:
    configs/gsnet/vitb16_landdiscover50k.yaml      a file
    gsnet/vitb16_landdiscover50k                   the same, shipped with the package; ".yaml" may be left out
    configs/papers/dr_seg.yaml:table6/k_20         a row of a table, see ovrs.config.papers
    papers/dr_seg:table6/k_20                      the same, shipped
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ovrs.errors import ConfigError, nearest

PACKAGE = Path(__file__).resolve().parents[1]
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ConfigName:
    """A configuration that was found: its file and, in a file of tables, table and row (else "")."""

    file: Path
    table: str = ""
    row: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.table}/{self.row}" if self.table else str(self.file)

    @property
    def output_dir(self) -> str | None:
        """``output/`` and the name: of every row, and of shipped recipes; ``None`` for other files."""
        file, folder = self.file.resolve(), configs_folder()
        if self.table:
            return f"output/{file.stem}/{self.table}/{self.row}"
        return f"output/{file.relative_to(folder).with_suffix('').as_posix()}" if folder in file.parents else None


def configs_folder() -> Path:
    """Return the folder of the shipped configurations: inside an installed package, beside it in a checkout."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def shipped_configs() -> list[str]:
    """Return the short names of all shipped files, as ``gsnet/vitb16_landdiscover50k``, sorted."""
    folder = configs_folder()
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))


def find_config(name: str | Path, beside: Path | None = None) -> ConfigName:
    """Return the configuration of a name; whether its row exists is not looked at.

    Args:
        name: see the module. A file of that path comes before a shipped one.
        beside: folder that relative paths start from; ``None`` for the working directory.

    Raises:
        ConfigError: there is no such file; the message names the nearest shipped configuration.
    """
    path, table, row = _split(str(name))
    candidates = _candidates(path, beside)
    for file in candidates:
        if file.is_file():
            return ConfigName(file, table, row)
    if candidates[0].is_dir():
        raise ConfigError(f"config file {path} cannot be read as text: it is a folder.")
    if re.fullmatch(r"[A-Z_0-9]+(\.[A-Z_0-9]+)+", path):
        raise ConfigError(f"{path} is a key: name a configuration first, such as demo/gsnet, then KEY VALUE pairs.")
    raise ConfigError(
        f"config file {path} does not exist, nor is it shipped with OVRS. The nearest shipped configuration is "
        f"{nearest(_short(path), shipped_configs())}."
    )


def _split(name: str) -> tuple[str, str, str]:
    """Return path, table and row."""
    path, colon, entry = name.rpartition(":")
    if not colon or len(path) == 1 or entry[:1] in ("/", "\\"):  # the colon of a drive names no row
        return name, "", ""
    table, _, row = entry.partition("/")
    return path, table, row


def _candidates(path: str, beside: Path | None) -> list[Path]:
    written = Path(path).expanduser()
    own = written if beside is None else beside / written
    found = [own, configs_folder() / written]
    if written.parts[:1] == ("configs",):  # as it is called in a checkout
        found.append(configs_folder().joinpath(*written.parts[1:]))
    return [*found, *(file.with_name(f"{file.name}.yaml") for file in found if file.suffix not in SUFFIXES)]


def _short(path: str) -> str:
    return path.removeprefix("configs/").removesuffix(".yaml")
