"""What recipes share: list files of the authors, and choices that nobody published."""

import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.preparation import Source, drawn, listed, splits_of_id


@pytest.fixture
def member(make, tmp_path):
    """Return the only file of a source, with the given content."""

    def write(content):
        with Source([make.tree("lists", {"val.txt": content})], tmp_path) as source:
            return source.members[0]

    return write


def test_list_is_read_whatever_wrote_it(member):
    content = "\ufeffdata_3\r\nP1__1.0__0\r\n\r\n  images/a b.tif \r\nimages\\c.tif".encode()
    assert listed(member(content)) == ["data_3", "P1__1.0__0", "a b.tif", "c.tif"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", r"val\.txt lists nothing"),
        (b"a\nb\na\n", r"val\.txt lists a twice"),
        (b"\xff\xd8", r"val\.txt is no text"),
    ],
)
def test_list_that_says_nothing_clear_is_refused(member, content, message):
    with pytest.raises(DataError, match=message):
        listed(member(content))


def test_names_are_drawn_alike_everywhere():
    names = [f"scene{number}" for number in range(20)]
    # worked out once; another result on another machine or version would be another data set
    assert sorted(drawn(names, 3, seed=0)) == ["scene12", "scene5", "scene7"]
    assert drawn(reversed(names), 3, seed=0) == drawn(names, 3, seed=0) != drawn(names, 3, seed=1)


def test_drawing_fewer_names_takes_some_of_those_drawn_before():
    names = [f"scene{number}" for number in range(20)]
    assert drawn(names, 5, seed=0) < drawn(names, 10, seed=0) < drawn(names, 20, seed=0) == set(names)


def test_more_names_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match="3 of 2 names"):
        drawn(["a", "b"], 3, seed=0)


@pytest.mark.parametrize("others", [["val"], []])
def test_what_no_list_names_goes_where_the_card_says(member, others):
    card = card_of("hg_potsdam_5", split_ids={"train": ["a"], "val": ["b"]}, other_ids=others)
    assert splits_of_id(card, "a", member(b"")) == ("train",)
    assert splits_of_id(card, "c", member(b"")) == tuple(others)


def test_what_no_list_names_is_refused_where_the_card_is_silent(member):
    with pytest.raises(DataError, match=r"val\.txt: c is in no list of source\.split_ids"):
        splits_of_id(card_of("hg_potsdam_5", split_ids={"train": ["a"]}), "c", member(b""))
