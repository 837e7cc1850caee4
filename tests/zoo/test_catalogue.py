"""The catalogue: every entry can be used, and files of one's own add to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ovrs.config import list_papers, load_config, load_paper
from ovrs.errors import WeightsError
from ovrs.zoo import LAYOUTS, catalogue, config_of, entry_of, find, list_models

ENTRIES = dict(catalogue())


def test_towers_come_first_and_can_be_listed_alone():
    assert list_models() == [name for kind in ("tower", "segmenter", "part") for name in list_models(kind)]
    assert {"openai/ViT-B-16", "rsib/ViT-B-8", "dinov3/ViT-L-16-sat493m"} <= set(list_models("tower"))
    assert {"gsnet-vitb16", "hg-openearthmap", "rskt-vitl14-dlrsd", "cat-seg-b"} <= set(list_models("segmenter"))


def test_files_and_names_are_unique():
    files = [entry.file for entry in ENTRIES.values()]
    names = [*ENTRIES, *(alias for entry in ENTRIES.values() for alias in entry.aliases)]
    assert len(files) == len(set(files))
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_is_complete(name: str):
    entry = ENTRIES[name]
    ways = [bool(way) for way in (entry.url, entry.hub, entry.google_drive, entry.by_hand)]
    assert sum(ways) == 1
    assert entry.sha256 == "" or re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    assert entry.address.startswith("https://") == (bool(entry.url or entry.hub) and not entry.gated)
    assert "/" not in entry.file
    if entry.kind == "tower":
        assert entry.arch
        assert len(entry.mean) == len(entry.std) == 3
    elif entry.kind == "segmenter":
        assert entry.layout in LAYOUTS
        assert entry.config
        assert re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+", entry.row)
        assert all(0 < figure < 100 for figure in entry.figures.values())


def test_openai_files_are_addressed_by_their_sum():
    for name, entry in ENTRIES.items():
        if name.startswith("openai/"):
            assert f"/{entry.sha256}/" in entry.url


def test_unknown_name_names_the_nearest():
    assert find("nothing") is None
    with pytest.raises(WeightsError, match="'cat-seg-x' is no name of the catalogue; the nearest are cat-seg-"):
        entry_of("cat-seg-x")


def test_own_entries_come_on_top(add_entry):
    assert list_models() == list(ENTRIES)
    add_entry("my-town", "segmenters", config="my.yaml")
    assert list_models() == [*ENTRIES, "my-town"]
    assert entry_of("my-town").kind == "segmenter"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sha265": "x"}, r"towers\.tiny\.sha265 is unknown; the nearest key is sha256"),
        ({"file": ""}, r"towers\.tiny lacks file"),
    ],
)
def test_wrong_entries_are_named(add_entry, values, words):
    add_entry(**values)
    with pytest.raises(WeightsError, match=words):
        catalogue()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("towers: {gone: 3}", r"towers\.gone: expected 'key: value' pairs, found 3"),
        ("models: {}", "models: unknown; a catalogue has towers, segmenters, parts"),
        ("towers: {rsib/ViT-B-8: {}}", r"towers\.rsib/ViT-B-8: the name is taken already"),
    ],
)
def test_wrong_files_are_named(monkeypatch, tmp_path: Path, text, words):
    (tmp_path / "own.yaml").write_text(text)
    monkeypatch.setenv("OVRS_ZOO", str(tmp_path / "own.yaml"))
    with pytest.raises(WeightsError, match=words):
        catalogue()


@pytest.mark.parametrize("name", list_models("segmenter"))
def test_released_model_has_a_configuration_and_a_row_that_names_it(name: str):
    entry = ENTRIES[name]
    assert load_config(config_of(name)).MODEL.META_ARCHITECTURE
    paper, table, row = entry.row.split(".")
    assert load_paper(paper).row(table, row)[1].checkpoint == name


@pytest.mark.parametrize("name", list_models("segmenter"))
def test_printed_figures_are_those_of_the_row(name: str):
    paper, table, row = ENTRIES[name].row.split(".")
    printed = load_paper(paper).row(table, row)[1].figures
    for column, figure in ENTRIES[name].figures.items():
        assert printed.get(column, printed.get(f"{column}/mIoU")) == figure


def test_every_checkpoint_of_a_paper_is_in_the_catalogue():
    named = {row.checkpoint for paper in list_papers() for table in load_paper(paper).tables.values()
             for row in table.rows.values() if row.checkpoint}  # fmt: skip
    assert named == set(list_models("segmenter"))
