"""ovrs models: the list, one model's facts, and fetching."""

from __future__ import annotations

import pytest
from file_server import CONTENT, SUM, Behaviour

from ovrs.cli import main
from ovrs.errors import UserError
from ovrs.zoo import entry_of, list_models


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["models", *words])
    return caught.value.code or 0


def test_list_says_what_is_present(cache, add_entry, capsys):
    add_entry("my-town", "segmenters", config="my.yaml", figures={"mean": 51.5}, licence="CC0")
    cache.mkdir()
    (cache / "my-town.pth").touch()
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[0]: line for line in lines}
    assert set(list_models()) <= set(rows)
    assert rows["my-town"].split()[-3:] == ["51.50", "CC0", "yes"]
    assert rows["gsnet-vitb16"].split()[-1] == "no"
    assert "Google Drive" in rows["gsnet-vitb16"]
    assert str(cache) in lines[-1]


def test_list_of_one_kind(capsys):
    run("--kind", "segmenter")
    text = capsys.readouterr().out
    assert "cat-seg-b" in text
    assert "openai/ViT-B-16" not in text


@pytest.mark.parametrize("name", list_models())
def test_every_model_is_described_with_the_way_to_get_it(cache, name, capsys):
    assert run("show", name) == 0
    text = capsys.readouterr().out
    entry = entry_of(name)
    assert entry.licence in text
    assert str(cache / entry.file) in text
    assert (f"ovrs models fetch {name}" in text) or entry.google_drive in text or entry.by_hand in text
    if entry.row:
        assert "ovrs reproduce {} {} --row {}".format(*entry.row.split(".")) in text


def test_fetch_goes_on_after_a_failure_and_ends_with_1(cache, server: Behaviour, add_entry, capsys):
    name = add_entry(url=f"{server.url}/tiny.pth", sha256=SUM)
    assert run("fetch", "rsib/ViT-B-8", name) == 1
    printed = capsys.readouterr()
    assert "drive.google.com" in printed.err
    assert printed.out == f"{name}: {cache / 'tiny.pth'}\n"
    assert (cache / "tiny.pth").read_bytes() == CONTENT


def test_fetch_from_a_file(cache, add_entry, tmp_path, capsys):
    (tmp_path / "given.pth").write_bytes(CONTENT)
    assert run("fetch", add_entry(by_hand="ask"), "--from", str(tmp_path / "given.pth")) == 0
    assert (cache / "tiny.pth").read_bytes() == CONTENT


def test_names_are_needed_to_show_or_fetch(capsys):
    code = run("fetch")
    assert "needs at least one NAME" in str(code)


def test_unknown_name_is_one_line(capsys):
    assert "the nearest are gsnet-vitb16" in str(run("show", "gsnet-vitb"))
    assert issubclass(UserError, ValueError)
