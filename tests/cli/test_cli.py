"""The command: help at once, one line per error, options anywhere, one file per command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ovrs.cli
from ovrs.cli import build_parser, main
from ovrs.config import ConfigError, load_config
from ovrs.engine import train_or_evaluate

ENTRY = "from ovrs.cli import main; main()"
ROOM = Path(ovrs.cli.__file__).parent
COMMANDS = sorted(
    " ".join(file.relative_to(ROOM).with_suffix("").parts).removesuffix(" __init__")
    for file in ROOM.rglob("*.py")
    if file not in (ROOM / "__init__.py", ROOM / "__main__.py")
)


def test_help_imports_nothing_slow():
    code = "import sys; from ovrs.cli import build_parser; build_parser().format_help(); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "detectron2", "numpy", "yaml", "rasterio"} & set(result.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"    ovrs {command}" in text.partition("Examples:")[2]


def test_list_of_commands_is_the_files_of_the_room(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    assert {"config", "eval", "train", "datasets", "datasets list"} <= set(COMMANDS)
    assert all(f"\n    {command}" in listed for command in COMMANDS if " " not in command)


def test_error_of_the_user_is_one_line_and_exit_code_1(tmp_path):
    words = [sys.executable, "-c", ENTRY, "config", str(tmp_path / "absent.yaml")]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"config file {tmp_path / 'absent.yaml'} does not exist" in result.stderr


def test_reader_who_has_seen_enough_ends_the_program_quietly():
    script = f'set -o pipefail; "{sys.executable}" -c "{ENTRY}" config demo/gsnet | head -1'
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("VERSION: 2\n", "")


def test_bug_keeps_its_traceback(monkeypatch):
    def broken(args):
        raise KeyError("a bug")

    monkeypatch.setattr(ovrs.cli.config, "run", broken)
    with pytest.raises(KeyError):
        main(["config"])


@pytest.mark.parametrize(
    "words",
    [
        ["--resume", "demo/gsnet", "SOLVER.MAX_ITER", "-1"],
        ["demo/gsnet", "--resume", "SOLVER.MAX_ITER", "-1"],
        ["demo/gsnet", "SOLVER.MAX_ITER", "-1", "--resume"],
    ],
)
def test_options_may_stand_anywhere(words):
    args = build_parser().parse_args(["train", *words])
    assert (args.name, args.overrides, args.resume) == ("demo/gsnet", ["SOLVER.MAX_ITER", "-1"], True)


def test_mistyped_option_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["train", "demo/gsnet", "--resumee"])
    assert caught.value.code == 2
    assert "--resumee" in capsys.readouterr().err


def test_configuration_is_printed_whole_and_can_be_used_again(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["config", "papers/dr_seg:table6/k_20", "SOLVER.MAX_ITER", "7"])
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    expected = load_config("papers/dr_seg:table6/k_20", ["SOLVER.MAX_ITER", "7"])
    assert yaml.safe_load(load_config(file).dump()) == yaml.safe_load(expected.dump())


def test_changed_keys_alone_give_the_same_configuration(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["config", "demo/hg_rsovsseg", "--changed"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 80
    file = tmp_path / "printed.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_config(file) == load_config("demo/hg_rsovsseg")


def test_list_names_recipes_tables_and_rows(capsys):
    with pytest.raises(SystemExit):
        main(["config"])
    listed = capsys.readouterr().out
    assert "  demo/gsnet\n" in listed
    assert "papers/dr_seg: Decouple and Rectify" in listed
    assert "k_20, k_40" in listed
    assert "dlrsd_vitb_san" not in listed  # quoted from the paper, no row to run


def test_evaluation_without_weights_names_the_key(monkeypatch):
    cfg = load_config("demo/gsnet")
    monkeypatch.setattr("ovrs.engine.main.prepare_run", lambda args: cfg)
    args = build_parser().parse_args(["eval", "demo/gsnet"])
    args.eval_only = True
    with pytest.raises(ConfigError, match=r"needs MODEL\.WEIGHTS"):
        train_or_evaluate(args)


def test_options_of_a_head_are_explained(ovrs):
    text = ovrs("config", "--help-keys", "MODEL.GSNET")
    assert "MODEL.GSNET.FUSION" in text
    assert "query_guided" in text
    assert "One of" in text
    assert "MODEL.DR_SEG" not in text
    assert "MODEL.DR_SEG.PDGR.TOPK" in ovrs("config", "--help-keys")
    with pytest.raises(SystemExit, match=r"no head has options MODEL\.GSNT; the nearest group is MODEL\.GSNET"):
        ovrs("config", "--help-keys", "MODEL.GSNT")
