from __future__ import annotations

import pytest

from ovrs.data import built_in_cards
from ovrs.errors import VocabularyError
from ovrs.vocabulary import Vocabulary, merge_classes, normalised_word


@pytest.mark.parametrize("word", ["low vegetation", "Low-Vegetation", "LOW_VEGETATION", "  low -  vegetation\t"])
def test_case_hyphens_underscores_and_spaces_do_not_count(word):
    assert normalised_word(word) == "low vegetation"


def test_plurals_stay_apart():
    assert merge_classes({"a": ["car", "road"], "b": ["cars", "road"]})[0] == ("car", "road", "cars")


def test_first_string_wins_and_new_classes_follow_in_order():
    classes, indices = merge_classes(
        {
            "a": ["Low vegetation", "building|house"],
            "b": ["tree", "HOUSE", "low-vegetation|grass"],
            "c": ["tree", "sea"],
        }
    )
    assert classes == ("Low vegetation", "building|house", "tree", "sea")
    assert indices == {"a": (0, 1), "b": (2, 1, 0), "c": (2, 3)}


def test_quoted_comma_belongs_to_the_word():
    classes, indices = merge_classes({"a": ['"tree, forest"|wood', "sea"], "b": ["Wood", "road"]})
    assert classes == ('"tree, forest"|wood', "sea", "road")
    assert indices["b"] == (0, 2)


def test_words_of_later_strings_lead_to_the_first_class():
    classes, indices = merge_classes(
        {"a": ["building", "sea"], "b": ["building|house", "road"], "c": ["house", "tree"]}
    )
    assert classes == ("building", "sea", "road", "tree")
    assert indices["c"] == (0, 3)


def test_equal_lists_merge_to_themselves():
    texts = ("a|b", "c", "d")
    assert merge_classes({"train": texts, "val": texts}) == (texts, {"train": (0, 1, 2), "val": (0, 1, 2)})


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"a": ["house|roof", "road"], "b": ["house", "roof"]}, r"b lists 'house' and 'roof' .* 'house\|roof'"),
        ({"a": ["house", "roof"], "b": ["house|roof", "road"]}, r"'house\|roof' of b .* both 'house' and 'roof'"),
        ({"a": ["Small-Car", "small car"]}, "a lists 'Small-Car' and 'small car'"),
    ],
)
def test_words_that_contradict_each_other_are_named(lists, message):
    with pytest.raises(VocabularyError, match=message):
        merge_classes(lists)


def test_all_built_in_cards_merge_into_a_valid_vocabulary():
    # SegEarth-OV's lists are for evaluation alone: their many synonyms join what other sets keep apart.
    lists = {card.name: card.classes for card in built_in_cards() if not card.name.startswith("segearth_")}
    assert len(lists) > 30
    classes, indices = merge_classes(lists)
    assert len(Vocabulary.from_strings(classes)) == len(classes) < sum(map(len, lists.values()))
    for name, texts in lists.items():
        found = [normalised_word(classes[index]) for index in indices[name]]
        assert found == [normalised_word(text) for text in texts]


@pytest.mark.parametrize("card", built_in_cards(), ids=lambda card: card.name)
def test_built_in_card_is_a_valid_vocabulary(card):
    """No comma outside quotes and no word in two classes."""
    assert len(Vocabulary.from_strings(card.classes)) == len(card.classes)
