"""Options beside their owner: keys, defaults, checks and messages from one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from detectron2.config import CfgNode

from ovrs.config import OPTION_GROUPS, ConfigError, Options, get_cfg, option, options_node, read_options
from ovrs.config import register_options as register
from ovrs.config.loader import load_options
from ovrs.config.options import path_keys, walk_options


@dataclass(frozen=True)
class Part(Options):
    """A group inside a group."""

    file: str = option("", "a file", path=True)
    lambda_: float = option(0.3, "a share", minimum=0, maximum=1)


@dataclass(frozen=True)
class Whole(Options):
    """Every kind of option."""

    mode: Literal["fast", "exact"] = option("fast", "one of two")
    modes: tuple[Literal["a", "b"], ...] = option(("a",), "any of two")
    count: int = option(2, "at least one", minimum=1)
    scale: float = option(1.5, "above zero", above=0)
    sides: tuple[int, ...] = option((3, 5), "at least one each", minimum=1)
    on: bool = option(True, "a switch")
    part: Part = option(Part(), "the group inside")

    def check(self, key: str) -> None:
        if self.count > len(self.sides):
            raise ConfigError(f"{key}.COUNT must not exceed the number of {key}.SIDES.")


def changed(**values: Any) -> CfgNode:
    node = options_node(Whole)
    for name, value in values.items():
        *groups, key = name.split("__")
        target = node
        for group in groups:
            target = target[group]
        assert key in target
        target[key] = value
    return node


def test_keys_and_defaults_follow_from_the_fields():
    assert options_node(Whole) == {
        "MODE": "fast",
        "MODES": ["a"],
        "COUNT": 2,
        "SCALE": 1.5,
        "SIDES": [3, 5],
        "ON": True,
        "PART": {"FILE": "", "LAMBDA": 0.3},
    }


def test_options_are_read_back_from_their_keys():
    assert read_options(Whole, options_node(Whole), "KEY") == Whole()
    node = changed(MODE="exact", MODES=["b", "a"], SIDES=[1, 2, 3], SCALE=2, PART__LAMBDA=1.0)
    read = read_options(Whole, node, "KEY")
    assert read == Whole("exact", ("b", "a"), 2, 2, (1, 2, 3), True, Part("", 1.0))
    assert options_node(read) == node


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MODE": "exat"}, r"KEY\.MODE must be one of fast, exact, got 'exat'\. Did you mean 'exact'\?"),
        ({"MODES": ["a", "c"]}, r"KEY\.MODES must be one of a, b, got 'c'"),
        ({"COUNT": 0}, r"KEY\.COUNT must be at least 1, got 0"),
        ({"COUNT": True}, r"KEY\.COUNT must be of type int, got True"),
        ({"SCALE": 0.0}, r"KEY\.SCALE must be above 0, got 0\.0"),
        ({"SCALE": float("nan")}, r"KEY\.SCALE must be above 0, got nan"),
        ({"SIDES": [3, 0]}, r"KEY\.SIDES must be at least 1, got \(3, 0\)"),
        ({"SIDES": [3, "5"]}, r"KEY\.SIDES must be of type .*got \(3, '5'\)"),
        ({"ON": 1}, r"KEY\.ON must be of type bool, got 1"),
        ({"PART__LAMBDA": 1.5}, r"KEY\.PART\.LAMBDA must be at most 1, got 1\.5"),
        ({"PART__LAMBDA": -0.5}, r"KEY\.PART\.LAMBDA must be at least 0, got -0\.5"),
        ({"COUNT": 3}, r"KEY\.COUNT must not exceed the number of KEY\.SIDES"),
    ],
)
def test_wrong_value_is_refused_with_key_value_and_what_is_allowed(values: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        read_options(Whole, changed(**values), "KEY")


# ---------------------------------------------------------------------- groups of the configuration


@pytest.fixture(autouse=True)
def _own_groups():
    before = dict(OPTION_GROUPS)
    yield
    OPTION_GROUPS.clear()
    OPTION_GROUPS.update(before)


def test_registered_group_is_in_every_configuration_made_from_then_on():
    assert "WHOLE_TEST" not in get_cfg().MODEL
    register("WHOLE_TEST", Whole)
    assert options_node(Whole) == get_cfg().MODEL.WHOLE_TEST


def test_group_of_another_class_is_refused_and_the_same_class_is_not():
    register("WHOLE_TEST", Whole)
    register("WHOLE_TEST", Whole)
    with pytest.raises(ValueError, match=r"MODEL\.WHOLE_TEST belongs to .*Whole already"):
        register("WHOLE_TEST", Part)


def test_options_that_name_files_are_found_in_all_groups():
    register("WHOLE_TEST", Whole)
    assert {"MODEL.WHOLE_TEST.PART.FILE", "MODEL.DR_SEG.SPSD.FILE"} <= set(path_keys())
    assert [key for key, item, *_ in walk_options("KEY", Whole) if item.metadata["path"]] == ["KEY.PART.FILE"]


def test_options_are_read_from_a_file_and_words(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("RATE: 1e-3\nSIZES: [1, 2]\n")
    defaults = CfgNode({"RATE": 0.5, "SIZES": [3], "NAME": "a"})
    found = load_options(defaults, file, ["SIZES", "[4]"])
    assert (found.RATE, found.SIZES, found.NAME) == (1e-3, [4], "a")


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("RAT: 1", [], "options.yaml: unknown key RAT. The nearest valid key is RATE"),
        ("- RATE", [], "expected 'KEY: value' pairs, found a list"),
        ("", ["RATE", "fast"], "command line: RATE must be of type float"),
        ("", ["RATE"], "come in pairs"),
    ],
)
def test_options_that_are_none_are_refused(tmp_path, text, words, message):
    file = tmp_path / "options.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_options(CfgNode({"RATE": 0.5}), file, words)
