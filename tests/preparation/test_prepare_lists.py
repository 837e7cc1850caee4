"""Splits by the authors' list files."""

import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.preparation import Source, listed_splits, taken

CARD = card_of("hg_openearthmap_8")  # train, val, and test, which no split takes
LISTS = {"train.txt": b"a_1.tif\na_2.tif\n", "val.txt": b"regions/b_1.TIF\r\n", "test.txt": b"c_1\n"}


def splits(make, tmp_path, files, *arguments):
    with Source([make.tree("lists", files)], tmp_path) as source:
        return listed_splits(source, CARD, *arguments)


def test_stem_gets_the_splits_that_the_card_gives_to_its_list(make, tmp_path):
    expected = {"a_1": ("train",), "a_2": ("train",), "b_1": ("val",), "c_1": ()}
    assert splits(make, tmp_path, LISTS) == expected


def test_list_is_known_by_a_word_of_its_name(make, tmp_path):
    names = {"train.txt": "oem_train-2.txt", "val.txt": "val_list.txt", "test.txt": "b test.txt"}
    files = {names[name]: content for name, content in LISTS.items()}
    files |= {"trainval.txt": b"wrong\n", "contest.txt": b"wrong\n", "train.csv": b"wrong\n"}
    assert sorted(splits(make, tmp_path, files)) == ["a_1", "a_2", "b_1", "c_1"]


def test_folder_tells_the_lists_of_one_set_from_those_of_another(make, tmp_path):
    files = {f"{folder}/x/{name}": content for folder in ("OEM", "other") for name, content in LISTS.items()}
    assert len(splits(make, tmp_path, files, "OEM")) == 4
    with pytest.raises(DataError, match="the same thing twice"):
        splits(make, tmp_path, files)


def test_missing_list_and_stem_of_two_lists_are_named(make, tmp_path):
    with pytest.raises(DataError, match=r"val\.txt and .*train\.txt both list a_2"):
        splits(make, tmp_path, {**LISTS, "val.txt": b"a_2.png"})
    (make.folder / "lists/val.txt").unlink()
    with pytest.raises(DataError, match=r"test\.txt, but not val\.txt"):
        splits(make, tmp_path, {})


def test_what_is_missing_and_what_is_not_listed_is_told(caplog):
    listed = {"a": ("train",), "b": ("val",), "c": ("val",), "d": ()}
    assert taken(CARD, listed, {"a", "b", "d", "e"}, "Look again.") == {"a": ("train",), "b": ("val",)}
    assert caplog.messages == [
        "hg_openearthmap_8: 1 of 3 listed images are not in the source: c. Look again.",
        "hg_openearthmap_8: 1 images are in no list and left out: e.",
    ]
    caplog.clear()
    assert taken(CARD, listed, {"a", "b", "c"}, "Look again.").keys() == {"a", "b", "c"}
    assert not caplog.messages
