"""What pip installs: every file that the package reads, and the command that finds it outside of a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The tree that a wheel holds, built from a copy of what lies in the checkout."""
    folder = tmp_path_factory.mktemp("a copy")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("ovrs", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", "built"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "built"


def files_of(folder: Path) -> set[str]:
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_every_file_of_the_package_and_every_configuration_is_installed(installed):
    assert files_of(installed / "ovrs/configs") == files_of(ROOT / "configs")
    assert {file for file in files_of(installed / "ovrs") if not file.startswith("configs/")} == files_of(ROOT / "ovrs")


def test_installed_command_finds_the_shipped_configurations_from_anywhere(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "ovrs.cli", "config", "papers/dr_seg:table6/k_20", "--changed"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert "TOPK: 20" in result.stdout
    assert "OUTPUT_DIR: output/dr_seg/table6/k_20" in result.stdout
