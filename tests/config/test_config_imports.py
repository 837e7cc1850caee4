"""IMPORTS: modules that a configuration names are imported before its keys are read, in every process."""

from __future__ import annotations

import multiprocessing
import sys

import pytest
from detectron2.data import DatasetCatalog

from ovrs.config import OPTION_GROUPS, ConfigError, get_cfg, import_modules, load_config

MODULE = """
from dataclasses import dataclass
from typing import Literal

from detectron2.data import DatasetCatalog
from ovrs.config import Options, option, register_options

@dataclass(frozen=True)
class MineOptions(Options):
    scale: float = option(2.0, "factor", above=0)
    norm: Literal["l1", "l2"] = option("l2", "length")

register_options("MINE", MineOptions)
DatasetCatalog.register("my_roofs", list)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a space that holds a module; what importing it leaves is taken away again."""
    before, groups = set(sys.modules), dict(OPTION_GROUPS)
    path = tmp_path / "my project"
    path.mkdir()
    (path / "mine.py").write_text(MODULE, encoding="utf-8")
    yield path
    OPTION_GROUPS.clear()
    OPTION_GROUPS.update(groups)
    for name in set(sys.modules) - before:
        if "mine" in name:
            del sys.modules[name]


@pytest.fixture
def write(folder):
    def write_yaml(text: str, name: str = "model.yaml"):
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write_yaml


def test_options_of_a_module_beside_the_file_are_keys_at_once(write, folder, tmp_path, monkeypatch):
    assert "MINE" not in get_cfg().MODEL
    file = write("IMPORTS: [mine.py]\nMODEL: {MINE: {SCALE: 3}}")
    monkeypatch.chdir(tmp_path)
    cfg = load_config(file, ["MODEL.MINE.NORM", "l1"])
    assert (cfg.MODEL.MINE.SCALE, cfg.MODEL.MINE.NORM) == (3.0, "l1")
    assert [str(folder / "mine.py")] == cfg.IMPORTS  # absolute: config.yaml is used from anywhere
    assert "my_roofs" in DatasetCatalog.list()


def test_wrong_key_of_own_options_names_the_nearest(write):
    file = write("IMPORTS: [mine.py]\nMODEL.MINE.SCAL: 3")
    with pytest.raises(ConfigError, match=r"unknown key MODEL\.MINE\.SCAL\. The nearest .* MODEL\.MINE\.SCALE"):
        load_config(file)


def test_module_is_imported_by_name_where_python_finds_it(write, folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    cfg = load_config(write("IMPORTS: [mine]"))
    assert cfg.MODEL.MINE.SCALE == 2.0
    assert cfg.IMPORTS == ["mine"]


def test_lists_of_bases_and_of_the_command_line_add_up(write, folder):
    for name in ("first", "second", "third"):
        (folder / f"{name}_mine.py").write_text("")
    write("IMPORTS: [first_mine.py]", "base.yaml")
    file = write("_BASE_: base.yaml\nIMPORTS: [second_mine.py, first_mine.py]")
    third = str(folder / "third_mine.py")
    names = [str(folder / f"{name}_mine.py") for name in ("first", "second", "third")]
    assert names == load_config(file, ["IMPORTS", f"['{third}']"]).IMPORTS


def test_module_is_run_once_however_often_it_is_named(write, folder):
    (folder / "mine.py").write_text(f"{MODULE}\nprint('imported')")
    file = write("IMPORTS: [mine.py, ./mine.py]")
    assert [str(folder / "mine.py")] == load_config(file).IMPORTS
    load_config(file)  # registering twice would be an error
    import_modules(load_config(file))


def test_row_of_a_table_may_import(write):
    file = write("_BASE_: demo/gsnet\nIMPORTS: [mine.py]\ntables: {t: {title: x, rows: {a: {config: {}}}}}", "t.yaml")
    with pytest.raises(ConfigError, match="unknown key IMPORTS"):  # it belongs to the differences
        load_config(f"{file}:t/a")
    row = "{config: {IMPORTS: [mine.py], MODEL.MINE.SCALE: 5}}"
    file = write(f"_BASE_: demo/gsnet\ntables: {{t: {{title: x, rows: {{a: {row}}}}}}}", "t.yaml")
    assert load_config(f"{file}:t/a").MODEL.MINE.SCALE == 5.0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[absent.py]", r"IMPORTS: .*absent\.py does not exist; a \.py file is looked up beside the YAML"),
        ("[no_such_package.sets]", r"IMPORTS: there is no module no_such_package\.sets\. Install it"),
        ("[json.no_such_part]", r"there is no module json\.no_such_part"),
        ("mine.py", r"IMPORTS must be a list of modules or \.py files, got 'mine\.py'"),
        ("[3]", r"IMPORTS must be a list of modules or \.py files, got \[3\]"),
    ],
)
def test_missing_module_names_file_and_remedy(write, names, message):
    file = write(f"IMPORTS: {names}")
    with pytest.raises(ConfigError, match=message) as error:
        load_config(file)
    assert str(error.value).startswith(str(file))


def test_bug_in_a_module_keeps_its_traceback(write, folder):
    (folder / "mine.py").write_text("import no_such_package_of_mine")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_of_mine"):
        load_config(write("IMPORTS: [mine.py]"))
    (folder / "mine.py").write_text("raise KeyError('a bug')")
    with pytest.raises(KeyError, match="a bug"):
        load_config(write("IMPORTS: [mine.py]"))


def _groups_after_import(cfg, queue):
    import_modules(cfg)
    queue.put(sorted(OPTION_GROUPS))


def test_spawned_process_imports_what_a_loaded_configuration_names(write):
    cfg = load_config(write("IMPORTS: [mine.py]"))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_groups_after_import, args=(cfg, queue))
    process.start()
    found = queue.get()
    process.join()
    assert "MINE" in found
