"""Original colours and ids become stored ids by the facts of a card, and nothing unknown slips through."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.preparation import Member, OriginalLabels, ignored_id, labels

RED, BLACK, WHITE = (255, 0, 0), (0, 0, 0), (255, 255, 255)


@pytest.fixture
def member(make):
    def save(pixels: np.ndarray) -> Member:
        content = make.encoded(np.asarray(pixels, np.uint8), "PNG")
        return Member("town/a.png", len(content), make.tree("town", {"a.png": content}) / "a.png")

    return save


def test_colours_become_stored_ids(member):
    encoding = OriginalLabels.of_mapping({"255,0,0": 7, "0,0,0": 0, "255,255,255": 3}, "card")
    assert encoding.read(member([[RED, BLACK], [WHITE, RED]])).tolist() == [[7, 0], [3, 7]]


def test_threshold_cleans_colours_that_compression_has_touched(member):
    pixels = [[(254, 3, 1), (128, 127, 0)], [(200, 130, 255), (100, 0, 90)]]
    mapping = {"255,0,0": 7, "0,0,0": 0, "255,255,255": 3}
    assert OriginalLabels.of_mapping(mapping, "card", 128).read(member(pixels)).tolist() == [[7, 7], [3, 0]]
    with pytest.raises(DataError, match=r"hold values that the card does not know: .*254,3,1"):
        OriginalLabels.of_mapping(mapping, "card").read(member(pixels))


@pytest.mark.parametrize("rows", [1, 2, 1024])
def test_unknown_value_is_counted_and_its_first_pixel_named(member, rows, monkeypatch):
    monkeypatch.setattr(labels, "_ROWS", rows)
    pixels = np.ones((6, 4))
    pixels[3, 2] = pixels[5, 0] = 9
    pixels[4, 1] = 200
    with pytest.raises(DataError) as caught:
        OriginalLabels.of_mapping({0: 0, 1: 5}, "card").read(member(pixels))
    message = str(caught.value)
    assert "town/a.png hold values that the card does not know: 9 (2 pixels, the first at row 3, column 2), " in message
    assert "200 (1 pixels, the first at row 4, column 1). Known are 0, 1." in message


def test_unknown_colour_is_named_as_in_the_card(member):
    encoding = OriginalLabels.of_mapping({"255,0,0": 1, "0,0,0": 0}, "card", 128)
    with pytest.raises(
        DataError, match=r"\(after the threshold 128\).*: 255,255,255 \(1 pixels.*Known are 0,0,0, 255,0,0"
    ):
        encoding.read(member([[(130, 200, 190), RED]]))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hg_loveda_6", {0: 0, 1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6}),
        ("rskt_loveda_8", {value: value for value in range(8)}),
        ("gsnet_flair_12", {value: min(value - 1, 12) for value in range(1, 20)}),
        ("gsnet_floodnet_10", {value: value for value in range(10)}),
    ],
)
def test_ids_of_cards_become_what_the_papers_stored(name, expected):
    encoding = OriginalLabels.of_card(card_of(name))
    assert (dict(encoding.table), encoding.colours) == (expected, False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hg_potsdam_5", {"clutter": 0, "black": 0, "car": 5}),
        ("gsnet_potsdam_5", {"clutter": 5, "black": 5, "car": 4}),
        ("rskt_potsdam_6", {"clutter": 5, "black": 255, "car": 4}),
    ],
)
def test_colours_of_cards_become_what_the_papers_stored(name, expected):
    table = dict(OriginalLabels.of_card(card_of(name)).table)
    assert {"clutter": table[0xFF0000], "black": table[0], "car": table[0xFFFF00]} == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hg_potsdam_5", 0),
        ("gsnet_potsdam_5", 5),
        ("rskt_isaid_15", 255),
        ("rskt_uavid_8", 255),
        ("gsnet_flair_12", 12),
    ],
)
def test_ignored_pixels_are_stored_as_the_card_lists_them(name, value):
    assert ignored_id(card_of(name)) == value


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"source_colours": {"1,2,3": "bulding"}}, r"'bulding' is not among the classes; the nearest is 'building'"),
        ({"source_colours": {"1,2": "car"}}, r"source_colours: keys must be integers, or colours"),
        ({"source_colours": {"1,2,300": "car"}}, r"source_colours: keys must be integers, or colours"),
        ({"source_colours": None}, r"needs source_colours or original_to_index"),
        ({"source_colours": None, "original_to_index": {1: 77}}, r"labels: lists no stored value for 1"),
    ],
)
def test_card_with_useless_facts_is_named(facts, message):
    with pytest.raises(DataError, match=rf"hg_potsdam_5\.yaml: source.*{message}"):
        OriginalLabels.of_card(card_of("hg_potsdam_5", **facts))


def test_stored_ids_must_fit_into_a_byte():
    with pytest.raises(DataError, match=r"my map: values must be stored ids 0\.\.255"):
        OriginalLabels.of_mapping({0: 256}, "my map")
