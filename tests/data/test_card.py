from pathlib import Path

import pytest

from ovrs.data.card import load_card
from ovrs.data.catalog import built_in_cards
from ovrs.data.encodings import ColourEncoding, IdEncoding
from ovrs.errors import DataError
from ovrs.structures import IGNORE_LABEL

# (text queries, classes that labels can contain), as the papers and their code have them
FACTS = {
    "gsnet_deepglobe_ld40": (40, 39),
    "gsnet_fast_37": (37, 37),
    "gsnet_flair_12": (12, 12),
    "gsnet_floodnet_10": (10, 9),
    "gsnet_landdiscover50k_40": (40, 39),
    "gsnet_landdiscover_10k_40": (40, 39),
    "gsnet_landdiscover_20k_40": (40, 39),
    "gsnet_landdiscover_30k_40": (40, 39),
    "gsnet_landdiscover_40k_40": (40, 39),
    "gsnet_loveda_ld40": (40, 39),
    "gsnet_oem_ld40": (40, 39),
    "gsnet_potsdam_5": (5, 5),
    "gsnet_sior_ld40": (40, 39),
    "gsnet_sota_ld40": (40, 39),
    "hg_flair1_12": (12, 12),
    "hg_gid_large_5": (5, 5),
    "hg_globe230k_10": (10, 10),
    "hg_landcoverai_4": (4, 4),
    "hg_loveda_6": (6, 6),
    "hg_openearthmap_8": (8, 8),
    "hg_potsdam_5": (5, 5),
    "rskt_dlrsd_17": (17, 17),
    "rskt_isaid_15": (15, 15),
    "rskt_loveda_8": (8, 8),
    "rskt_potsdam_6": (6, 6),
    "rskt_uavid_8": (8, 8),
    "rskt_udd5_5": (5, 5),
    "rskt_vaihingen_6": (6, 6),
    "rskt_vdd_7": (7, 7),
    "src_deepglobe_6": (6, 6),
    "src_flair_13": (13, 13),
    "src_flair_19": (19, 19),
    "src_loveda_7": (7, 7),
    "src_openearthmap_8": (8, 8),
    "src_sior_20": (20, 20),
    "src_sota_18": (18, 18),
    "segearth_chn6_cug_2": (2, 2),
    "segearth_deepglobe_road_2": (2, 2),
    "segearth_inria_2": (2, 2),
    "segearth_isaid_16": (16, 16),
    "segearth_loveda_7": (7, 7),
    "segearth_massachusetts_road_2": (2, 2),
    "segearth_openearthmap_9": (9, 9),
    "segearth_potsdam_6": (6, 6),
    "segearth_spacenet_road_2": (2, 2),
    "segearth_uavid_7": (7, 7),
    "segearth_udd5_5": (5, 5),
    "segearth_vaihingen_6": (6, 6),
    "segearth_vdd_7": (7, 7),
    "segearth_wbs_si_2": (2, 2),
    "segearth_whu_aerial_2": (2, 2),
    "segearth_whu_sat2_2": (2, 2),
    "segearth_xbd_2": (2, 2),
}


def test_built_in_cards_have_the_class_counts_of_their_protocols():
    assert {card.name: (len(card.classes), len(card.labelled_classes)) for card in built_in_cards()} == FACTS


@pytest.mark.parametrize("card", built_in_cards(), ids=lambda card: card.name)
def test_built_in_card_is_complete(card):
    assert card.path.stem == card.name
    assert all((card.title, card.licence, card.notes, card.source["family"]))
    assert card.homepage.startswith("https://")
    assert card.palette is None or len(set(card.palette)) == len(card.palette) == len(card.classes)
    assert len(card.display_names) == len(card.classes)
    assert card.splits or card.name.startswith("src_")


def test_names_that_only_ignored_values_have_are_not_displayed():
    (card,) = (card for card in built_in_cards() if card.name == "gsnet_potsdam_5")
    assert card.display_names == ("impervious surface", "building", "low vegetation", "tree", "car")
    assert dict(card.labels.table)[5] == IGNORE_LABEL


def test_labels_default_to_class_indices(write_card):
    assert load_card(write_card()).labels == IdEncoding(((0, 0), (1, 1), (2, 2)))


def test_offset_shifts_stored_values(write_card):
    card = load_card(write_card(labels={"offset": -1, "valid": [1, 3], "ignore": [0]}))
    assert card.labels.table == ((1, 0), (2, 1), (3, 2), (0, IGNORE_LABEL))


def test_several_stored_values_may_mean_one_class(write_card):
    card = load_card(write_card(labels={"ids": {1: "road", 2: "road", 3: "building"}}))
    assert card.labels.table == ((1, 1), (2, 1), (3, 0))
    assert card.labelled_classes == (0, 1)


def test_colours_are_lists_or_hexadecimal(write_card):
    labels = {"colours": {"road": [0, 128, 255], "building|house": "#FF0a00"}, "ignore_colours": ["#000000"]}
    assert load_card(write_card(labels=labels)).labels == ColourEncoding(
        (((0, 128, 255), 1), ((255, 10, 0), 0), ((0, 0, 0), IGNORE_LABEL))
    )


def test_paths_suffixes_and_stems_are_read_per_split(write_card):
    train = {
        "images": "a",
        "labels": None,
        "image_suffix": ".JPG",
        "stems": ["x"],
        "label_stem_replace": {"MSK_": "IMG_"},
        "allow_unpaired_labels": True,
    }
    split = load_card(write_card(splits={"train": train}, label_suffix="_mask.tif")).splits["train"]
    assert (split.images, split.labels, split.image_suffix, split.label_suffix) == ("a", None, ".JPG", "_mask.tif")
    assert (split.stems, split.label_stem_replace) == (("x",), (("MSK_", "IMG_"),))
    assert split.allow_unpaired_labels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clases": ["a", "b"]}, "clases is unknown. The nearest valid key is classes"),
        ({"classes": None}, "classes is missing"),
        ({"classes": ["alone"]}, "at least 2 classes"),
        ({"classes": []}, "at least 2 classes"),
        ({"classes": "a, b"}, "classes must be a list of texts"),
        ({"classes": [False, "yes"]}, "quotes"),
        ({"classes": ["a||b", "c"]}, "empty word"),
        ({"classes": [f"c{i}" for i in range(255)]}, "at most 254 classes"),
        ({"name": "two words"}, "'two words' is no usable name"),
        ({"name": 5}, "name must be a text, found 5 of type int"),
        ({"gsd_m": True}, "gsd_m must be a number"),
        ({"palette": [[0, 0, 0]]}, "lists 1 colours for 3 classes"),
        ({"palette": [[0, 0, 0], [0, 0, 256], [1, 1, 1]]}, r"found \[0, 0, 256\]"),
        ({"metadata_classes": ["a", "b", "c", "d"]}, "lists 4 names for 3 classes"),
        ({"aliases": {"Town": "test"}}, "split 'test', which does not exist"),
        ({"image_suffix": "png"}, "has no dot"),
        ({"splits": {"train": {"labels": "x"}}}, "splits.train.images is missing"),
        ({"splits": {"train": {"images": "x", "labels": "y", "suffix": ".a"}}}, "splits.train.suffix is unknown"),
        ({"splits": {"train": {"images": "x", "labels": "y", "stems": ["a"], "stem_file": "b"}}}, "exclude each other"),
        ({"splits": ["train"]}, "splits: expected 'key: value' pairs"),
        ({"labels": {"valid": [0, 3]}}, "class indices 0..3, but the card lists 3 classes"),
        ({"labels": {"valid": [0, 1, 2]}}, r"must be \[first, last\]"),
        ({"labels": {"ignore": [2]}}, r"\[2\] are values of classes too"),
        ({"labels": {"ignore": ["2"]}}, "labels.ignore must be a list of integers"),
        ({"labels": {"colors": {}}}, "labels.colors is unknown. The nearest valid key is colours"),
        ({"labels": {"coco": "a.json", "background": "sky"}}, "labels.background: 'sky' is not among the classes"),
        ({"labels": {"coco": "a.json", "ids": {}}}, "ids and coco exclude each other"),
        ({"image_suffix": []}, "image_suffix is empty"),
        ({"image_suffix": [".png", "jpg"]}, "'jpg' has no dot"),
        ({"labels": {"ids": {1: "rod"}}}, "'rod' is not among the classes. The nearest class is 'road'"),
        ({"labels": {"ids": {"one": "road"}}}, "'one' is no stored value"),
        ({"labels": {"ids": {1: "road"}, "colours": {}}}, "ids and colours exclude each other"),
        ({"labels": {"colours": {"road": "red"}}}, "found 'red'"),
        ({"labels": {"colours": {"road": [1, 2, 3], "other": [1, 2, 3]}}}, "listed twice"),
        ({"labels": {"colours": {"road": [1, 2, 3]}, "threshold": 128}}, r"\[1, 2, 3\] cannot occur"),
        ({"labels": {"colours": {"road": [0, 0, 0]}, "threshold": 0}}, "threshold must be an integer from 1 to 255"),
    ],
)
def test_bad_card_is_refused_with_file_and_key(write_card, changes, message):
    path = write_card(**changes)
    with pytest.raises(DataError, match=message) as error:
        load_card(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("given", ["parent.yaml", "sub/../parent.yaml", "absolute"])
def test_card_inherits_what_it_does_not_say(write_card, tmp_path, given):
    parent = write_card(palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]], licence="free", image_suffix=".jpg", notes=["old"])
    parent = parent.rename(tmp_path / "parent.yaml")
    (tmp_path / "sub").mkdir()
    other = str(parent) if given == "absolute" else given
    child = tmp_path / "child.yaml"
    child.write_text(f"name: child\ninherit: {other}\nlicence: mine\nsplits: {{test: {{images: a, labels: b}}}}\n")
    card, original = load_card(child), load_card(parent)
    assert (card.name, card.title, card.licence, card.notes, list(card.splits)) == (
        "child",
        "child",
        "mine",
        (),
        ["test"],
    )
    assert card.splits["test"].image_suffix == ".jpg"
    assert (card.classes, card.labels, card.palette) == (original.classes, original.labels, original.palette)
    assert card.path == child


def test_own_card_inherits_from_a_built_in_one(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\ninherit: hg_potsdam_5\n")
    card = load_card(tmp_path / "mine.yaml")
    (original,) = (card for card in built_in_cards() if card.name == "hg_potsdam_5")
    assert (card.classes, card.labels, card.splits, card.source) == (original.classes, original.labels, {}, {})


@pytest.mark.parametrize(
    ("other", "message"),
    [("a.yaml", "in turn"), ("b.yaml", "in turn"), ("none.yaml", "no card"), ("hg_potsdam", "nearest is hg_potsdam_5")],
)
def test_circles_and_unknown_cards_are_no_inheritance(tmp_path, other, message):
    (tmp_path / "a.yaml").write_text(f"name: a\ninherit: {other}\n")
    (tmp_path / "b.yaml").write_text("name: b\ninherit: a.yaml\n")
    with pytest.raises(DataError, match=rf"[ab]\.yaml: inherit: .*{message}"):
        load_card(tmp_path / "a.yaml")


def test_missing_card_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.yaml does not exist"):
        load_card(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "only plain YAML"),
        ("- a", "'key: value' pairs"),
    ],
)
def test_anything_but_a_plain_yaml_mapping_is_refused(tmp_path: Path, text, message):
    path = tmp_path / "card.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_card(path)
