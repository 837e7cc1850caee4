"""tools/install_detectron2.py on a miniature of the wheel that it downloads."""

import base64
import csv
import hashlib
import importlib.metadata
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

SOURCE_INFO = "sal_detectron2-0.7.2.dist-info"
PYTHON_FILES = {"detectron2/__init__.py": b"VALUE = 42\n", "detectron2/config/defaults.py": b"# \xc3\xa9\n"}
OTHER_FILES = {"detectron2/model_zoo/configs/base.yaml": b"VERSION: 2\n"}
LEFT_OUT = {
    "detectron2/_C.cpython-310-x86_64-linux-gnu.so": b"\x7fELF",
    f"{SOURCE_INFO}/METADATA": b"Metadata-Version: 2.1\nName: sal-detectron2\nVersion: 0.7.2\nRequires-Dist: numpy<2\n",
    f"{SOURCE_INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-none-any\n",
    f"{SOURCE_INFO}/RECORD": b"",
}
LICENCE = b"Apache License 2.0\n"


@pytest.fixture
def source(tmp_path) -> Path:
    """A wheel like the published one: Python files, an extension, and metadata under the other name."""
    path = tmp_path / "down loads" / "sal_detectron2-0.7.2-cp310-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("detectron2/", b"")
        for name, content in (PYTHON_FILES | OTHER_FILES | LEFT_OUT).items():
            archive.writestr(name, content)
        archive.writestr(f"{SOURCE_INFO}/LICENSE", LICENCE)
    return path


@pytest.fixture
def installer(load_tool, source, monkeypatch):
    """The script, told that the miniature is the file it was written for."""
    module = load_tool("install_detectron2")
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(source.read_bytes()).hexdigest())
    return module


@pytest.fixture
def run(installer, monkeypatch):
    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["install_detectron2.py", *map(str, arguments)])
        installer.main()

    return run


@pytest.fixture
def wheel(run, source, tmp_path) -> Path:
    run("--wheel", source, "--build-only", tmp_path / "built here")
    (path,) = (tmp_path / "built here").iterdir()
    return path


def test_wheel_holds_the_python_files_and_no_extension(installer, wheel):
    assert wheel.name == installer.WHEEL_NAME
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        content = {name: archive.read(name) for name in archive.namelist()}
    info = {f"{installer.DIST_INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "LICENSE")}
    assert set(content) == {*PYTHON_FILES, *OTHER_FILES, *info}
    assert {name: content[name] for name in PYTHON_FILES | OTHER_FILES} == PYTHON_FILES | OTHER_FILES
    assert content[f"{installer.DIST_INFO}/LICENSE"] == LICENCE


def test_record_lists_every_file_with_its_sum_and_size(installer, wheel):
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    record = f"{installer.DIST_INFO}/RECORD"
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(content[record].decode()))}
    assert set(rows) == set(content)
    assert rows.pop(record) == ["", ""]
    for name, (digest, size) in rows.items():
        algorithm, _, value = digest.partition("=")
        assert (
            base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)) == hashlib.new(algorithm, content[name]).digest()
        )
        assert int(size) == len(content[name])


def test_pip_installs_it_as_detectron2(installer, wheel, tmp_path):
    target = tmp_path / "site packages"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = importlib.metadata.distributions(path=[str(target)])
    assert (found.name, found.version) == ("detectron2", installer.VERSION)
    assert {Requirement(text).name for text in found.requires} >= {"fvcore", "iopath", "omegaconf"}
    assert "numpy" not in {Requirement(text).name for text in found.requires}  # upstream's bound does not hold
    assert (target / "detectron2" / "__init__.py").read_bytes() == PYTHON_FILES["detectron2/__init__.py"]
    assert not list(target.rglob("*.so"))


def test_wheel_with_another_sum_is_refused(run, source, tmp_path):
    source.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(SystemExit, match=r"SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}\. The file is damaged or is"):
        run("--wheel", source, "--build-only", tmp_path / "built")
    assert not list((tmp_path / "built").iterdir())


def test_missing_wheel_is_named(run, tmp_path):
    with pytest.raises(SystemExit, match=r"absent\.whl does not exist"):
        run("--wheel", tmp_path / "absent.whl", "--build-only", tmp_path)


def test_nothing_is_done_where_detectron2_is_installed(run, installer, monkeypatch, capsys):
    monkeypatch.setattr(installer, "download", lambda folder: pytest.fail("downloaded"))
    run()
    assert f"detectron2 {importlib.metadata.version('detectron2')} is installed already" in capsys.readouterr().out


def test_missing_installation_is_built_and_installed(run, installer, source, monkeypatch):
    commands = []
    monkeypatch.setattr(installer, "installed_version", lambda: None)
    monkeypatch.setattr(installer, "download", lambda folder: source)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append((command, options)))
    run()
    ((command, options),) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert Path(command[-1]).name == installer.WHEEL_NAME
    assert options == {"check": True}
