"""From the name of a configuration and the words of a command line to the merged configuration."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from ovrs.config.imports import import_all
from ovrs.config.keys import PATH_KEYS, get_cfg
from ovrs.config.names import ConfigName, find_config
from ovrs.config.options import path_keys
from ovrs.config.papers import read_paper
from ovrs.errors import ConfigError
from ovrs.plain_yaml import read_plain_yaml

BASE_KEY = "_BASE_"
IMPORTS_KEY = "IMPORTS"
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Layer:
    """What one file, or one part of a file of tables, changes.

    Attributes:
        content: nested keys and values.
        source: file (and row), for messages.
        folder: where relative paths of the file start.
    """

    content: dict[str, Any]
    source: str
    folder: Path


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """Read a configuration (with ``_BASE_`` inheritance) and command-line overrides onto the defaults.

    The modules of ``IMPORTS`` are imported first. ``OUTPUT_DIR`` follows from the name where nothing sets it:
    ``output/dr_seg/table6/k_20`` for the row ``papers/dr_seg:table6/k_20``, ``output/demo/gsnet`` for the shipped
    ``demo/gsnet``.

    Args:
        name: a YAML file, a shipped configuration, or a row of a file of tables (see :mod:`ovrs.config.names`). Only
            plain YAML is accepted: no tags that would run code.
        overrides: alternating keys and values, as typed on the command line.

    Returns:
        The merged configuration, not frozen.

    Raises:
        ConfigError: unreadable file, unsafe tag, unknown key, wrong type. The message names the file
            and key, and the nearest valid key for an unknown one.
    """
    found = find_config(name)
    layers = [*_layers(found), _command_line(overrides)]
    imports = _import_all(layers)
    cfg = get_cfg()
    for layer in layers:
        _merge(cfg, layer.content, layer)
    cfg.IMPORTS = imports
    if found.output_dir and not any("OUTPUT_DIR" in layer.content for layer in layers):
        cfg.OUTPUT_DIR = found.output_dir
    return cfg


def load_options(defaults: CfgNode, file: str | Path = "", overrides: Sequence[str] = ()) -> CfgNode:
    """Read a flat YAML file and command-line overrides onto keys that belong to no configuration.

    Args:
        defaults: the keys; filled and returned.
        file: plain YAML; "" for none.
        overrides: alternating keys and values, as typed on the command line.

    Raises:
        ConfigError: as :func:`load_config`.
    """
    content = (read_plain_yaml(Path(file), "file of options", ConfigError) or {}) if file else {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected 'KEY: value' pairs, found a {type(content).__name__}.")
    for layer in (Layer(_nested(content), str(file), Path(file).parent), _command_line(overrides)):
        _merge(defaults, layer.content, layer)
    return defaults


def changed_keys(cfg: CfgNode, defaults: CfgNode) -> dict[str, Any]:
    """Return, as plain nested values, the keys of ``cfg`` that differ from ``defaults``."""
    changed = {}
    for key, value in cfg.items():
        default = defaults.get(key)
        if isinstance(value, CfgNode) and isinstance(default, CfgNode):
            value = changed_keys(value, default)
            if value:
                changed[key] = value
        elif plain(value) != plain(default):
            changed[key] = plain(value)
    return changed


def plain(value: Any) -> Any:
    """Return a configuration or a value of one as dicts and lists, ready for YAML."""
    if isinstance(value, CfgNode):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


# ---------------------------------------------------------------------- layers


def _layers(name: ConfigName, inheriting: tuple[str, ...] = ()) -> list[Layer]:
    """Return what a configuration changes, bases first."""
    identity = str(ConfigName(name.file.resolve(), name.table, name.row))
    if identity in inheriting:
        raise ConfigError(f"{name}: {BASE_KEY} leads back to the file itself.")
    content = read_plain_yaml(name.file, "config file", ConfigError) or {}
    if not isinstance(content, dict):
        raise ConfigError(f"{name}: expected 'KEY: value' pairs, found a {type(content).__name__}.")

    if "tables" in content:
        table, row = read_paper(name.file, content).row(name.table, name.row)
        if row.config is None:
            raise ConfigError(f"{name}: {row.label} cannot be run here; its figures are quoted from the paper.")
        base, parts = row.base, {f"{name.file}:{name.table}": table.config, str(name): row.config}
    else:
        if name.table:
            raise ConfigError(f"{name}: {name.file} is one configuration and has no tables; leave {name.table!r} out.")
        base, parts = content.pop(BASE_KEY, None), {str(name): content}
    layers = [Layer(_nested(part), source, name.file.parent) for source, part in parts.items()]
    return layers if base is None else [*_layers(_base(base, name), (*inheriting, identity)), *layers]


def _base(base: Any, name: ConfigName) -> ConfigName:
    if not isinstance(base, str):
        raise ConfigError(f"{name}: {BASE_KEY} must be the path of one file, got {base!r}.")
    try:
        return find_config(f"{name.file.name}{base}" if base.startswith(":") else base, name.file.parent)
    except ConfigError as error:
        raise ConfigError(f"{name}: {BASE_KEY} names {base}, which does not exist; correct the path. {error}") from None


def _nested(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping whose dotted keys, a short form of nesting, are written out."""
    nested: dict[str, Any] = {}
    for key, value in content.items():
        value = _nested(value) if isinstance(value, Mapping) else value
        *groups, last = str(key).split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        if isinstance(value, dict) and isinstance(node.get(last), dict):
            node[last] |= value
        else:
            node[last] = value
    return nested


def _command_line(words: Sequence[str]) -> Layer:
    for word in words[::2]:
        if word.startswith("-"):
            raise ConfigError(f"{COMMAND_LINE}: put options such as {word} before the KEY VALUE pairs.")
    if len(words) % 2:
        raise ConfigError(f"{COMMAND_LINE}: overrides come in pairs KEY VALUE, got {len(words)} words: {words}.")
    return Layer(_nested(dict(zip(words[::2], words[1::2], strict=True))), COMMAND_LINE, Path())


def _import_all(layers: Sequence[Layer]) -> list[str]:
    """Import what the layers name; return the names, files as absolute paths, each once."""
    found: dict[str, str] = {}
    for layer in layers:
        names = layer.content.pop(IMPORTS_KEY, [])
        names = _parse(names) if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{layer.source}: {IMPORTS_KEY} must be a list of modules or .py files, got {names!r}.")
        for name in names:
            found[str((layer.folder / name).resolve()) if name.endswith(".py") else name] = layer.source
    for name, source in found.items():
        import_all([name], f"{source}: {IMPORTS_KEY}")
    return list(found)


# ---------------------------------------------------------------------- values


def _merge(cfg: CfgNode, content: dict[str, Any], layer: Layer, prefix: tuple[str, ...] = ()) -> None:
    for key, value in content.items():
        keys = (*prefix, key)
        present = _find(cfg, keys)
        if isinstance(value, dict) and (isinstance(present, CfgNode) or layer.source == COMMAND_LINE):
            _merge(cfg, value, layer, keys)
            continue
        if layer.source == COMMAND_LINE:
            parsed = _parse(value)
            # Text stays text where the key holds text: an empty word is YAML's null, "2024" a number.
            value = value if isinstance(present, str) and not isinstance(parsed, str) else parsed
        elif ".".join(keys) in (*PATH_KEYS, *path_keys()) and isinstance(value, str):
            beside = layer.folder / value
            value = str(beside.resolve()) if beside.is_file() else value  # absolute: config.yaml is used from anywhere
        _assign(cfg, keys, value, layer.source)


def _parse(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _find(cfg: CfgNode, keys: Sequence[str]) -> Any:
    node: Any = cfg
    for key in keys:
        node = node.get(key) if isinstance(node, CfgNode) else None
    return node


def _assign(cfg: CfgNode, keys: Sequence[str], value: Any, source: str) -> None:
    name = ".".join(keys)
    parent = _find(cfg, keys[:-1])
    if not isinstance(parent, CfgNode) or keys[-1] not in parent:
        raise ConfigError(f"{source}: unknown key {name}. The nearest valid key is {nearest_key(name, cfg)}.")
    parent[keys[-1]] = _coerce(parent[keys[-1]], value, f"{source}: {name}")


def nearest_key(name: str, cfg: CfgNode) -> str:
    """Return the key most like ``name``, by the whole and by the last part alone: SOLVER.LR is near SOLVER.BASE_LR."""
    last = name.rpartition(".")[2]

    def likeness(known: str) -> float:
        known_last = known.rpartition(".")[2]
        whole_word = 0.5 * (last in known_last.split("_"))
        return whole_word + sum(
            difflib.SequenceMatcher(None, *pair).ratio() for pair in ((name, known), (last, known_last))
        )

    # Its own group is no answer to a name within it.
    return max((known for known, group in _names(cfg) if not (group and name.startswith(f"{known}."))), key=likeness)


def _names(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the full names of all keys and groups of keys, and whether each is a group."""
    for key, value in cfg.items():
        group = isinstance(value, CfgNode)
        yield f"{prefix}{key}", group
        if group:
            yield from _names(value, f"{prefix}{key}.")


def _coerce(default: Any, value: Any, where: str) -> Any:
    """Return ``value`` as the type of ``default``, or raise."""
    if isinstance(default, CfgNode):
        raise ConfigError(f"{where} is a group of keys, not a value; the group has {', '.join(default)}.")
    remedy = ""
    if isinstance(default, (list, tuple)):
        remedy = " Write a list: [a, b]."
        if isinstance(value, (list, tuple)):
            if default and all(isinstance(item, float) for item in default):
                value = [_coerce(default[0], item, f"{where}, item {i}") for i, item in enumerate(value)]
            return type(default)(value)
    elif isinstance(default, float) and not isinstance(value, bool):
        try:  # YAML reads "1e-4" as a string
            return float(value)
        except (TypeError, ValueError):
            pass
    elif default is None or type(value) is type(default):
        return value
    raise ConfigError(
        f"{where} must be of type {type(default).__name__} (default {default!r}), got {value!r} "
        f"of type {type(value).__name__}.{remedy}"
    )
