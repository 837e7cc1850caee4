from __future__ import annotations

from pathlib import Path

import pytest

from ovrs.config import ConfigError, load_config
from ovrs.config.names import configs_folder, find_config, shipped_configs

SHIPPED = Path(__file__).parents[2] / "configs"


def test_shipped_configurations_lie_beside_the_package_of_a_checkout():
    assert configs_folder() == SHIPPED
    assert {"demo/gsnet", "papers/dr_seg", "Base-OVRS"} <= set(shipped_configs())


@pytest.mark.parametrize(
    ("name", "file", "row"),
    [
        ("demo/gsnet", "demo/gsnet.yaml", ("", "")),
        ("demo/gsnet.yaml", "demo/gsnet.yaml", ("", "")),
        ("configs/demo/gsnet.yaml", "demo/gsnet.yaml", ("", "")),
        (SHIPPED / "demo/gsnet.yaml", "demo/gsnet.yaml", ("", "")),
        ("papers/dr_seg:table6/k_20", "papers/dr_seg.yaml", ("table6", "k_20")),
        ("papers/dr_seg.yaml:table6/k_20", "papers/dr_seg.yaml", ("table6", "k_20")),
        ("configs/papers/dr_seg.yaml:table6/k_20", "papers/dr_seg.yaml", ("table6", "k_20")),
        (f"{SHIPPED}/papers/dr_seg.yaml:table6/k_20", "papers/dr_seg.yaml", ("table6", "k_20")),
        ("papers/dr_seg:table6", "papers/dr_seg.yaml", ("table6", "")),
    ],
)
def test_shipped_configuration_is_found_from_anywhere(tmp_path, monkeypatch, name, file, row):
    monkeypatch.chdir(tmp_path)
    found = find_config(name)
    assert (found.file, (found.table, found.row)) == (SHIPPED / file, row)


def test_file_here_comes_before_a_shipped_one(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/gsnet.yaml").write_text("SEED: 5")
    monkeypatch.chdir(tmp_path)
    assert load_config("demo/gsnet").SEED == 5


def test_colon_of_a_drive_names_no_row():
    with pytest.raises(ConfigError, match=r"config file C:\\mine\.yaml does not exist"):
        find_config("C:\\mine.yaml")


def test_unknown_name_gets_the_nearest_shipped_one(tmp_path):
    with pytest.raises(ConfigError, match=r"demo/gsent does not exist, .* is demo/gsnet\."):
        find_config("demo/gsent")
    with pytest.raises(ConfigError, match=r"The nearest shipped configuration is papers/dr_seg\."):
        find_config("paper/dr_seg:table6/k_20")


def test_key_in_the_place_of_a_name_is_called_so():
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITER is a key: name a configuration first"):
        find_config("SOLVER.MAX_ITER")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("demo/gsnet", "output/demo/gsnet"),
        ("papers/dr_seg:table6/k_20", "output/dr_seg/table6/k_20"),
        ("gsnet/vitl14_336_landdiscover50k", "output/gsnet/vitl14_336_landdiscover50k"),
    ],
)
def test_output_folder_follows_from_the_name(name, folder):
    assert folder == load_config(name).OUTPUT_DIR
    assert load_config(name, ["OUTPUT_DIR", "mine"]).OUTPUT_DIR == "mine"


def test_output_folder_of_other_files_is_the_default_or_their_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("_BASE_: demo/gsnet")
    assert load_config(file).OUTPUT_DIR == "./output"
    file.write_text("_BASE_: demo/gsnet\nOUTPUT_DIR: here")
    assert load_config(file).OUTPUT_DIR == "here"


def test_base_may_be_a_shipped_name_or_a_row(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("_BASE_: papers/dr_seg:table6/k_20\nSOLVER.MAX_ITER: 9")
    cfg = load_config(file)
    assert (cfg.MODEL.DR_SEG.PDGR.TOPK, cfg.SOLVER.MAX_ITER) == (20, 9)


def test_row_of_a_file_without_tables_is_refused():
    with pytest.raises(ConfigError, match="is one configuration and has no tables"):
        load_config("demo/gsnet:table1/a")
