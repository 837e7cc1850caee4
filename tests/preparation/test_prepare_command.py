"""ovrs datasets prepare, and datasets/prepare.py, which is the same."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from ovrs.cli import main

SCRIPT = Path(__file__).parents[2] / "datasets/prepare.py"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command; return (exit code or message, what it printed)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ovrs"])
        with pytest.raises(SystemExit) as end:
            main(["datasets", "prepare", *map(str, arguments)])
        return end.value.code or 0, capsys.readouterr()

    return run


def test_set_is_prepared_checked_and_not_prepared_twice(command, rural, out):
    arguments = ("LoveDA_my_dataset", "--source", rural / "Train", rural / "Val", "--out", out, "--workers", 1)
    code, printed = command(*arguments, "--dry-run")
    assert code == 0
    assert "hg_loveda_6_train: 8 pairs would be in" in printed.out
    assert not out.exists()

    code, printed = command(*arguments)
    assert code == 0
    assert "hg_loveda_6_train: 8 pairs are in" in printed.out

    code, printed = command(*arguments)
    assert code == 0
    assert "Nothing to write" in printed.out

    code, printed = command("--check", "hg_loveda_6", "--out", out, "--workers", 1)
    assert code == 0
    assert "unusual: 8 pairs, but 10088 were expected" in printed.out
    assert "What a wrong conversion looks like" in printed.out


def test_check_ends_with_an_error_code_where_something_is_wrong(command, out):
    code, printed = command("--check", "hg_loveda_6", "--out", out, "--workers", 1)
    assert code == 1
    assert "WRONG: " in printed.out


def test_strict_ends_with_a_message(command, rural, out):
    code, _ = command("hg_loveda_6", "--source", rural, "--out", out, "--workers", 1, "--strict")
    assert code.startswith("ovrs: hg_loveda_6_train: 8 pairs, but 10088 were expected")


def test_out_is_the_data_root_of_the_environment_where_none_is_given(command, rural, out, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(out))
    command("rskt_loveda_8", "--source", rural, "--workers", 1)
    assert len(list((out / "LoveDA/images_png").iterdir())) == 4


def test_list_names_every_set_that_has_a_recipe(command):
    code, printed = command("--list")
    assert code == 0
    for name in ("hg_potsdam_5", "hg_loveda_6", "rskt_isaid_15"):
        assert name in printed.out
    assert "src_" not in printed.out


@pytest.mark.parametrize(
    "arguments",
    [[], ["hg_loveda_6"], ["--list", "--source", "x"], ["--check", "x", "--list"]],
)
def test_arguments_that_do_not_belong_together_are_refused(command, arguments):
    assert re.fullmatch("ovrs: (give one of|NAME and --source belong together).*", command(*arguments)[0])


def test_script_in_the_folder_is_the_same_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--list"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert not end.value.code
    assert "hg_loveda_6" in capsys.readouterr().out


def test_help_shows_examples(command):
    code, printed = command("--help")
    assert code == 0
    assert "ovrs datasets prepare hg_loveda_6 --source Train.zip Val.zip --out /data" in printed.out
