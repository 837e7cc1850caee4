"""Every ``ovrs`` command of README, guides and ``--help`` is one that the program understands."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from pathlib import Path

import pytest

import ovrs.cli
from ovrs.cli import build_parser
from ovrs.config import load_config
from ovrs.config.names import shipped_configs

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "datasets/README.md", *ROOT.glob("docs/*.md")]
SOURCES = sorted(Path(ovrs.cli.__file__).parent.rglob("*.py"))
# A line of a code block or of a docstring's examples, with the lines that it goes on in.
COMMAND = re.compile(r"^ *(ovrs (?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE)
MENTION = re.compile(r"`ovrs ([a-z]+(?: [a-z]+)?)`")


def text_of(file: Path) -> str:
    """Return what a file tells its readers about commands."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    return "\n".join(re.findall(r"```\w*\n.*?```", text, re.DOTALL))


def commands() -> list:
    found = {}
    for file in [*DOCUMENTS, *SOURCES]:
        for command in COMMAND.findall(text_of(file)):
            words = shlex.split(command.replace("\\\n", " "), comments=True)
            found[" ".join(words)] = pytest.param(words[1:], id=f"{file.name}: {' '.join(words)}")
    return list(found.values())


@pytest.mark.parametrize("words", commands())
def test_command_is_understood(words):
    words = list(itertools.takewhile(lambda word: word not in (">", "|"), words))
    args = build_parser().parse_args(words)
    shipped = {f"{name}.yaml" for name in shipped_configs()}
    if words[0] in ("config", "train", "eval") and args.name and f"{args.name.partition(':')[0]}.yaml" in shipped:
        load_config(args.name, args.overrides)


@pytest.mark.parametrize(
    "words", sorted({words for file in DOCUMENTS for words in MENTION.findall(file.read_text(encoding="utf-8"))})
)
def test_command_that_is_mentioned_exists(words):
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([*words.split(), "--help"])
    assert not end.value.code
