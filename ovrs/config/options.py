"""Options that stand beside their owner: one frozen dataclass gives configuration keys, checks and messages.

    @dataclass(frozen=True)
    class CosineOptions(Options):
        scale: float = option(100.0, "factor of the cosine", above=0)
        norm: Literal["l1", "l2"] = option("l2", "length of the features")

becomes, by ``register_options("COSINE", CosineOptions)``, the group ``MODEL.COSINE`` with the keys ``SCALE`` and
``NORM``. A field whose type is another options class is a group inside the group. A name that Python keeps for itself
gets an underscore, which the key has not: ``lambda_`` is ``LAMBDA``.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from detectron2.config import CfgNode

from ovrs.errors import ConfigError, choose

OptionsType = TypeVar("OptionsType", bound="Options")


def option(
    default: Any,
    meaning: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    path: bool = False,
) -> Any:
    """Declare an option.

    Args:
        default: its value where a configuration says nothing. Lists are written as tuples.
        meaning: what it does, for people who read ``ovrs config --help-keys`` or the class.
        minimum: the least value allowed (of every item of a tuple).
        above: a value that it must exceed.
        maximum: the greatest value allowed.
        path: whether it names a file, which is looked up beside the YAML that sets it first.
    """
    bounds = {"minimum": minimum, "above": above, "maximum": maximum}
    return dataclasses.field(default=default, metadata={"meaning": meaning, "path": path, **bounds})


@dataclass(frozen=True)
class Options:
    """Base of all option classes. Allowed values are ``Literal`` types; bounds are given to :func:`option`."""

    def check(self, key: str) -> None:
        """Refuse values that do not fit each other. Subclasses override it; single values are checked already.

        Args:
            key: the group's full name, for messages: ``MODEL.GSNET``.

        Raises:
            ConfigError: the message names the keys.
        """


OPTION_GROUPS: dict[str, type[Options]] = {}  # groups of MODEL by name


def register_options(group: str, options: type[Options]) -> None:
    """Make ``options`` the group ``MODEL.<group>`` of every configuration made from now on.

    Raises:
        ValueError: another class has that group already.
    """
    known = OPTION_GROUPS.setdefault(group, options)
    if (known.__module__, known.__qualname__) != (options.__module__, options.__qualname__):
        raise ValueError(f"MODEL.{group} belongs to {known.__module__}.{known.__qualname__} already.")
    OPTION_GROUPS[group] = options


def key_of(item: dataclasses.Field) -> str:
    """Return the configuration key of a field."""
    return item.name.rstrip("_").upper()


def walk_options(key: str, options: type[Options] | Options) -> Iterator[tuple[str, dataclasses.Field, Any, Any]]:
    """Yield full key, field, type and default (or value) of every option of a class (or an instance), parts included.

    Args:
        key: the full name of the class's group: ``MODEL.GSNET``.
        options: the class or an instance.
    """
    instance = options() if isinstance(options, type) else options
    hints = typing.get_type_hints(type(instance))
    for item in dataclasses.fields(instance):
        name, value = f"{key}.{key_of(item)}", getattr(instance, item.name)
        if isinstance(value, Options):
            yield from walk_options(name, value)
        else:
            yield name, item, hints[item.name], value


def path_keys() -> list[str]:
    """Return the full names of the registered options that name files."""
    return [
        name
        for group, options in OPTION_GROUPS.items()
        for name, item, _, _ in walk_options(f"MODEL.{group}", options)
        if item.metadata.get("path")
    ]


def options_node(options: type[Options] | Options) -> CfgNode:
    """Return a group of configuration keys with the defaults of a class, or the values of an instance."""
    instance = options() if isinstance(options, type) else options
    node = CfgNode()
    for item in dataclasses.fields(instance):
        value = getattr(instance, item.name)
        if isinstance(value, Options):
            value = options_node(value)
        node[key_of(item)] = list(value) if isinstance(value, tuple) else value
    return node


def read_options(options: type[OptionsType], node: CfgNode, key: str) -> OptionsType:
    """Return the instance that a group of configuration keys describes, checked.

    Args:
        options: the class.
        node: its group of keys.
        key: the group's full name, for messages.

    Raises:
        ConfigError: a value that is not allowed; the message names key, value and what is allowed.
    """
    values = {}
    hints = typing.get_type_hints(options)
    for item in dataclasses.fields(options):
        name, value, hint = f"{key}.{key_of(item)}", node[key_of(item)], hints[item.name]
        if _is_group(hint):
            values[item.name] = read_options(hint, value, name)
            continue
        value = tuple(value) if isinstance(value, list) else value
        _check(item, hint, value, name)
        values[item.name] = value
    instance = options(**values)
    instance.check(key)
    return instance


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Options)


def _check(item: dataclasses.Field, hint: Any, value: Any, name: str) -> None:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choose(name, value, typing.get_args(hint))
    elif origin is tuple and typing.get_origin(typing.get_args(hint)[0]) is typing.Literal:
        for member in value:
            choose(name, member, typing.get_args(typing.get_args(hint)[0]))
    elif not _fits(value, hint):
        raise ConfigError(f"{name} must be of type {getattr(hint, '__name__', hint)}, got {value!r}.")
    minimum, above, maximum = (item.metadata.get(bound) for bound in ("minimum", "above", "maximum"))
    for number in value if isinstance(value, tuple) else (value,):
        if minimum is not None and not number >= minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {value!r}.")
        if above is not None and not number > above:
            raise ConfigError(f"{name} must be above {above}, got {value!r}.")
        if maximum is not None and not number <= maximum:
            raise ConfigError(f"{name} must be at most {maximum}, got {value!r}.")


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        return isinstance(value, tuple) and all(_fits(member, kind) for member in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is Any or isinstance(value, hint)
