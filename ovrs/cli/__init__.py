"""The command ``ovrs``: every module of this room is a sub-command.

A command is one file: its name is the file's, its docstring the help (the first line stands in the list), and it has

    add_arguments(parser)    its arguments
    run(args)                what it does; None or 0 where all went well, else the exit code

A package is a command whose sub-commands are its modules. Modules import what is slow (torch, this package's rooms)
inside ``run``, so that ``ovrs --help`` answers at once. Errors that the user can mend end the program with one line and
exit code 1, here and for all commands.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ovrs import __version__
from ovrs.errors import ConfigError, UserError, readable_errors

if TYPE_CHECKING:
    from detectron2.config import CfgNode


class Parser(argparse.ArgumentParser):
    """A parser whose options may stand anywhere: before, between and after the other words."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: D102
        if self._mixing or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._mixing = True  # the other method calls this one
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def main(words: Sequence[str] | None = None) -> None:
    """Run the command that the words of the command line name; the entry point of ``ovrs``."""
    args = build_parser().parse_args(words)
    with readable_errors():
        sys.exit(args.run(args))


def build_parser() -> Parser:
    """Return the parser with all commands."""
    parser = Parser(prog="ovrs", description="Open-vocabulary segmentation of remote-sensing images.")
    parser.add_argument("--version", action="version", version=__version__)
    _add_commands(parser, sys.modules[__name__])
    return parser


def _add_commands(parser: argparse.ArgumentParser, room: ModuleType) -> None:
    """Add a sub-command for every module of a package; a package in it is a command with sub-commands of its own."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules(room.__path__):
        if found.name.startswith("_"):
            continue
        module = importlib.import_module(f"{room.__name__}.{found.name}")
        command = commands.add_parser(found.name, help=module.__doc__.partition("\n")[0], description=module.__doc__)
        if found.ispkg:
            _add_commands(command, module)
        else:
            module.add_arguments(command)
            command.set_defaults(run=module.run)


def add_configuration(parser: argparse.ArgumentParser, required: bool = True, default: str | None = None) -> None:
    """Add the words that most commands share: ``name`` of a configuration, and ``overrides``."""
    what = "a YAML file, a shipped recipe, or a row such as papers/dr_seg:table6/k_20"
    if default:
        what += f" (default: {default})"
    optional = {} if required and not default else {"nargs": "?", "default": default}
    parser.add_argument("name", metavar="NAME", help=what, **optional)
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="keys and the values to replace theirs")


def log_to_stderr(level: int = logging.INFO) -> None:
    """Show what this package logs, as plain lines beside the command's own output."""
    logger = logging.getLogger("ovrs")
    logger.setLevel(level)
    logger.addHandler(logging.StreamHandler())


def add_model(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options that name a model (see :func:`model_configuration`), as a group to which more can go."""
    model = parser.add_argument_group("the model", "without one, the best that needs no training is fetched and used")
    model.add_argument("--model", help="a released model (see: ovrs models), or the folder of a training")
    model.add_argument("--config-file", help="instead of --model: the configuration that the model was trained with")
    model.add_argument("--weights", help="and its checkpoint, unless it needs no training")
    return model


def add_classes(parser: argparse._ActionsContainer) -> None:
    """Add the options that name classes, see :func:`listed_classes`."""
    parser.add_argument("--classes", nargs="+", default=[], help="one or more; 'a|b' gives synonyms of one class")
    parser.add_argument("--classes-file", type=Path, help="YAML: a list of them, or 'classes' and 'colours' (by name)")


def add_palette(parser: argparse._ActionsContainer) -> None:
    """Add the option that chooses colours of classes, where a command draws with them."""
    parser.add_argument("--palette", nargs="+", default=[], metavar="WORD=#RRGGBB", help="colours of some classes")


def listed_images(args: argparse.Namespace) -> list[str]:
    """Return the ``images`` of a command line with classes.

    Raises:
        UserError: there is none, or one stands behind ``--classes``.
    """
    if swallowed := [word for word in args.classes if Path(word).is_file()]:
        raise UserError(f"--classes took the file {swallowed[0]} for a class: put the images before --classes.")
    if not args.images:
        raise UserError("no image given: put the images before --classes.")
    return args.images


def listed_classes(args: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Return the class strings of a command line, and the colours of some by name.

    Args:
        args: what :func:`add_classes` and :func:`add_palette` added.

    Raises:
        ConfigError, VocabularyError: no class, a file of other content, or a colour that belongs to none.
    """
    from ovrs.errors import VocabularyError
    from ovrs.plain_yaml import read_plain_yaml

    classes, colours = list(args.classes), {}
    if args.classes_file:
        content: Any = read_plain_yaml(args.classes_file, "class list", VocabularyError)
        known = isinstance(content, dict) and {"classes"} <= content.keys() <= {"classes", "colours"}
        if not isinstance(content, list) and not known:
            raise VocabularyError(f"{args.classes_file} must be a list of classes, or have 'classes' and 'colours'.")
        classes += content["classes"] if known else content
        colours = dict(content.get("colours") or {}) if known else {}
    if not classes:
        raise VocabularyError("no classes given: name them after --classes, or in a --classes-file.")
    for text in getattr(args, "palette", ()):
        word, separator, colour = text.rpartition("=")
        if not separator:
            raise ConfigError(f"--palette: {text!r} must look like water=#1e90ff.")
        colours[word] = colour
    return classes, colours


def model_configuration(args: argparse.Namespace) -> CfgNode:
    """Return the configuration, weights included, of the model that a command line names.

    Where it names none, one that needs no training is chosen (:func:`ovrs.zoo.default_config`), and told.

    Args:
        args: what :func:`add_model` added.

    Raises:
        ConfigError: it names two, or weights alone.
        WeightsError: it names none, and there is none to choose.
    """
    from ovrs.config import load_config
    from ovrs.predictor import pretrained_config
    from ovrs.zoo import default_config

    if not (args.model or args.config_file or args.weights):
        name = default_config()
        print(f"No model named: using {name}, which needs no training.", file=sys.stderr)
        return load_config(name)
    if bool(args.model) == bool(args.config_file):
        raise ConfigError(
            "name a trained model: --model with a released one ('ovrs models' lists them) or the folder of a training "
            "('ovrs demo' makes one in minutes); or --config-file, with --weights unless it needs no training."
        )
    if args.model:
        return pretrained_config(args.model)
    return load_config(args.config_file, ["MODEL.WEIGHTS", args.weights] if args.weights else [])
