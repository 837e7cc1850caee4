"""ovrs datasets show: a sheet and a table of any data set, and messages where something is missing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def rows(output: str) -> dict[str, tuple[str, ...]]:
    """Return pixels, per cent and images by class."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    return {line[1]: tuple(line[2:5]) for line in cells if line[0].isdigit()}


def label_files(scenes: Path, split: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((scenes / "labels" / split).iterdir())]


def test_sheet_and_table_of_an_own_card(ovrs, scenes, tmp_path):
    sheet = tmp_path / "a folder" / "sheet.png"
    output = ovrs("datasets", "show", scenes / "scenes.yaml", "--split", "train", "--images", 2, "--output", sheet)
    labels = np.stack(label_files(scenes, "train"))
    table = rows(output)
    assert len(table) == 8
    for index, name in enumerate(table):
        pixels = int((labels == index).sum())
        images = int((labels == index).any(axis=(1, 2)).sum())
        assert table[name] == (f"{pixels:,}", f"{100 * pixels / labels.size:.2f}", str(images))
    assert "scenes_train: 4 of 4 label files" in output
    assert f"Sheet: {sheet}" in output
    assert Image.open(sheet).mode == "RGB"


@pytest.mark.parametrize("form", ["path:split", "path and split", "registered name", "card name and split"])
def test_every_way_to_name_a_data_set(ovrs, scenes, monkeypatch, form):
    card = scenes / "scenes.yaml"
    monkeypatch.setenv("OVRS_DATASETS", str(card))
    arguments = {
        "path:split": [f"{card}:val"],
        "path and split": [card, "--split", "val"],
        "registered name": ["scenes_val"],
        "card name and split": ["scenes", "--split", "val"],
    }[form]
    assert "scenes_val: 3 of 3 label files" in ovrs("datasets", "show", *arguments, "--histogram")


def test_histogram_alone_draws_nothing(ovrs, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = ovrs("datasets", "show", f"{scenes / 'scenes.yaml'}:val", "--histogram", "--sample", 2)
    assert "scenes_val: 2 of 3 label files" in output
    assert "Sheet" not in output
    assert not list(tmp_path.iterdir())


def test_sheet_goes_to_the_output_folder_by_default(ovrs, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ovrs("datasets", "show", f"{scenes / 'scenes.yaml'}:val")
    assert [path.name for path in (tmp_path / "output" / "inspection").iterdir()] == ["scenes_val.png"]


def test_unlabelled_split_is_drawn_without_a_table(ovrs, scenes, tmp_path):
    card = tmp_path / "bare.yaml"
    card.write_text(
        f"name: bare\nclasses: [a, b]\nsplits: {{all: {{images: '{scenes / 'images' / 'val'}', labels: null}}}}\n"
    )
    output = ovrs("datasets", "show", card, "--output", tmp_path / "sheet.png")
    assert output.strip() == f"Sheet: {tmp_path / 'sheet.png'}"
    assert (tmp_path / "sheet.png").is_file()


def test_classes_that_labels_cannot_hold_are_marked(ovrs, scenes, tmp_path):
    card = tmp_path / "query.yaml"
    folders = f"{{images: '{scenes / 'images' / 'val'}', labels: '{scenes / 'labels' / 'val'}'}}"
    ids = "{0: a, 1: a, 2: a, 3: a, 4: a, 5: a, 6: a, 7: a}"
    card.write_text(f"name: query\nclasses: [a, b]\nlabels: {{ids: {ids}}}\nsplits: {{all: {folders}}}\n")
    lines = ovrs("datasets", "show", card, "--histogram").splitlines()
    marked = [line for line in lines if "a text query that no label stands for" in line]
    assert len(marked) == 1
    assert re.match(r"\s+1\s+b\s+0\s+0\.00\s+0\s", marked[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hg_potsdam_5_val"], r"no folder .*Prepare the data set, or point DATASETS\.ROOT"),
        (
            ["hg_potsdam_5", "--split", "vall"],
            "unknown data set 'hg_potsdam_5_vall'. The nearest names are hg_potsdam_5",
        ),
        (["absent.yaml"], r"absent\.yaml does not exist"),
    ],
)
def test_missing_files_end_in_a_message_with_the_remedy(ovrs, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        ovrs("datasets", "show", *arguments, "--root", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: NAME"),
        (["a", "--images", "0"], "--images: must be at least 1, got 0"),
        (["a", "--output", "sheet.tree"], "--output: must end in .png or .jpg, got 'sheet.tree'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(ovrs, capsys, arguments, message):
    with pytest.raises(SystemExit):
        ovrs("datasets", "show", *arguments)
    assert message in capsys.readouterr().err
