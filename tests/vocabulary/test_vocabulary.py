from __future__ import annotations

import pytest

from ovrs.config import get_cfg
from ovrs.errors import ConfigError, VocabularyError
from ovrs.vocabulary import TEMPLATE_SETS, Vocabulary


def test_first_synonym_names_the_class():
    words = Vocabulary.from_strings(["building|house | roof", " road "])
    assert words.synonyms == (("building", "house", "roof"), ("road",))
    assert words.names == ("building", "road")
    assert len(words) == 2


def test_sentences_put_every_word_into_every_template():
    words = Vocabulary.from_strings(["sea|lake", "road"], ["a {}.", "the {}"])
    assert words.sentences == ["a sea.", "the sea", "a lake.", "the lake", "a road.", "the road"]
    assert words.class_of == (0, 0, 1)


def test_words_are_inserted_as_they_are():
    words = Vocabulary.from_strings(['"Low-Vegetation, {}"', "{0} %s"], ["a {}"])
    assert words.sentences == ["a Low-Vegetation, {}", "a {0} %s"]


def test_default_template_is_the_sentence_of_record():
    assert Vocabulary.from_strings(["tree", "road"]).sentences[1] == "A photo of a road in the scene"


def test_vocabularies_are_equal_by_content():
    same = [Vocabulary.from_strings(classes, ["{}"]) for classes in (["a|b", "c"], ("a | b", "c "))]
    assert same[0] == same[1]
    assert hash(same[0]) == hash(same[1])
    others = [Vocabulary.from_strings(["c", "a|b"], ["{}"]), Vocabulary.from_strings(["a|b", "c"], ["a {}"])]
    assert same[0] not in others


@pytest.mark.parametrize("classes", [[], ["road"]])
def test_fewer_than_two_classes_are_refused_with_the_remedy(classes):
    with pytest.raises(VocabularyError, match=f"at least 2 classes, got {len(classes)}.*'background'"):
        Vocabulary.from_strings(classes)


def test_one_class_is_allowed_where_the_caller_has_a_contrast():
    assert Vocabulary.from_strings(["road|street"], minimum=1).names == ("road",)
    with pytest.raises(VocabularyError, match="at least 1 classes, got 0"):
        Vocabulary.from_strings([], minimum=1)


@pytest.mark.parametrize("text", ["", " ", '""', "|", "sea|", "|sea", "sea||lake"])
def test_empty_word_names_the_class_string(text):
    with pytest.raises(VocabularyError) as error:
        Vocabulary.from_strings(["road", text])
    assert repr(text) in str(error.value)


@pytest.mark.parametrize(
    ("classes", "clashes"),
    [
        (["road|street", "tree", " road"], ["'road' of class 'road|street' and 'road' of class ' road'"]),
        (["road|street", "street"], ["'street' of class 'road|street' and 'street' of class 'street'"]),
        (
            ["road", "Road", "ROAD"],
            ["'road' of class 'road' and 'Road' of class 'Road'", "'road' of class 'road' and 'ROAD' of class 'ROAD'"],
        ),
        (["low vegetation", "tree", "Low-Vegetation"], ["'low vegetation' of", "'Low-Vegetation' of"]),
        (["sea|lake", "pond|lake|sea"], ["'lake' of class 'sea|lake'", "'sea' of class 'sea|lake'"]),
    ],
)
def test_word_in_two_classes_is_refused_and_named(classes, clashes):
    with pytest.raises(VocabularyError, match=r"classes share words: .*Every word belongs to one class") as error:
        Vocabulary.from_strings(classes)
    assert all(clash in str(error.value) for clash in clashes)


def test_word_may_stand_twice_in_its_own_class():
    assert Vocabulary.from_strings(["road|Road", "tree"]).synonyms[0] == ("road", "Road")


@pytest.mark.parametrize(
    ("text", "offers"),
    [
        ("building, road", ["'building' 'road'", "'building|road'", "'\"building, road\"'"]),
        ("roof|building, house", ["'roof' 'building' 'house'", "'roof|building|house'", "'\"building, house\"'"]),
    ],
)
def test_comma_is_refused_with_the_split(text, offers):
    with pytest.raises(VocabularyError, match="contains a comma") as error:
        Vocabulary.from_strings([text, "tree"])
    assert all(offer in str(error.value) for offer in offers)


def test_quoted_word_may_have_a_comma():
    words = Vocabulary.from_strings(['"tree, forest" | wood', "road"])
    assert words.synonyms == (("tree, forest", "wood"), ("road",))


def test_one_string_in_place_of_a_list_is_refused():
    with pytest.raises(VocabularyError, match="list of strings, got the single string 'road'"):
        Vocabulary.from_strings("road")


def test_class_that_is_no_string_says_to_quote_it():
    with pytest.raises(VocabularyError, match="class False is a bool; classes are strings, so put it in quotes"):
        Vocabulary.from_strings(["yes", False])


@pytest.mark.parametrize("template", ["a photo", "a {} and a {}", "a {0}", ""])
def test_template_without_exactly_one_slot_is_named(template):
    with pytest.raises(VocabularyError) as error:
        Vocabulary.from_strings(["road", "tree"], ["a {}", template])
    assert repr(template) in str(error.value)


def test_no_template_is_refused():
    with pytest.raises(VocabularyError, match="no template given"):
        Vocabulary.from_strings(["road", "tree"], [])


# ---------------------------------------------------------------------- template sets

SIZES = {
    "scene": 1,
    "photo": 1,
    "word": 1,
    "vild": 14,
    "imagenet": 80,
    "imagenet_select": 8,
    "imagenet_select_clip": 32,
    "simple": 7,
}


def test_every_set_has_a_known_size():
    assert {name: len(templates) for name, templates in TEMPLATE_SETS.items()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_templates_of_a_set_are_usable_and_distinct(name):
    templates = TEMPLATE_SETS[name]
    words = Vocabulary.from_strings(["road", "tree"], templates)
    assert words.templates == templates
    prompts = words.sentences[: len(templates)]
    assert len(set(prompts)) == len(templates)
    assert all("road" in sentence and "{" not in sentence for sentence in prompts)


def test_sets_hold_the_published_sentences():
    assert "itap of a {}." in TEMPLATE_SETS["imagenet"]
    assert "There is a medium {} in the scene." in TEMPLATE_SETS["vild"]
    assert TEMPLATE_SETS["imagenet_select"] == (*TEMPLATE_SETS["simple"], *TEMPLATE_SETS["scene"])
    assert "This is a masked photo of a small {}" in TEMPLATE_SETS["imagenet_select_clip"]


def test_configuration_chooses_a_set_or_gives_sentences():
    cfg = get_cfg()
    assert Vocabulary.templates_of(cfg) == TEMPLATE_SETS["scene"]
    cfg.VOCABULARY.TEMPLATE_SET = "vild"
    assert Vocabulary.templates_of(cfg) == TEMPLATE_SETS["vild"]
    cfg.VOCABULARY.TEMPLATES = ["seen from above: {}"]
    assert Vocabulary.templates_of(cfg) == ("seen from above: {}",)


def test_unknown_set_lists_the_known_ones():
    cfg = get_cfg()
    cfg.VOCABULARY.TEMPLATE_SET = "vilt"
    with pytest.raises(
        ConfigError, match=r"TEMPLATE_SET must be one of scene, photo, word, vild.*'vilt'. Did you mean 'vild'"
    ):
        Vocabulary.templates_of(cfg)
