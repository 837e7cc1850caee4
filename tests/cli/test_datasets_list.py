"""ovrs datasets list: every set by both names, and which of them are there."""

import re

import pytest

from ovrs.data import list_datasets


def rows(output: str) -> dict[str, list[str]]:
    """Return the cells of the table's lines by their first cell."""
    lines = output.split("\n\n")[0].splitlines()[2:]
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return {line[0]: line[1:] for line in cells}


def test_every_registered_set_is_listed_with_its_original_name(ovrs, tmp_path):
    output = ovrs("datasets", "list", "--root", tmp_path)
    summaries = {entry.name: entry for entry in list_datasets(tmp_path)}
    assert len(summaries) > 30
    assert set(rows(output)) == set(summaries)
    assert rows(output)["gsnet_flair_12_test"][0] == summaries["gsnet_flair_12_test"].aliases[0]
    assert f"{len(summaries)} data sets; root: {tmp_path}" in output


def test_present_lists_only_sets_whose_folders_exist(ovrs, tmp_path, scenes, monkeypatch):
    assert rows(ovrs("datasets", "list", "--root", tmp_path, "--present")) == {}
    monkeypatch.setenv("OVRS_DATASETS", str(scenes / "scenes.yaml"))
    found = rows(ovrs("datasets", "list", "--root", tmp_path, "--present"))
    assert set(found) == {"scenes_train", "scenes_val"}


def test_root_is_that_of_the_environment_where_none_is_given(ovrs, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "my data"))
    assert f"root: {tmp_path / 'my data'}" in ovrs("datasets", "list")


def test_card_that_does_not_exist_ends_in_a_message(ovrs, tmp_path, monkeypatch):
    monkeypatch.setenv("OVRS_DATASETS", str(tmp_path / "absent.yaml"))
    with pytest.raises(SystemExit) as caught:
        ovrs("datasets", "list")
    assert caught.value.code.startswith("ovrs: $OVRS_DATASETS lists ")
