import os
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ovrs.data.catalog import built_in_cards, data_root, list_datasets, resolve_datasets
from ovrs.errors import DataError

SPLITS = [(card, split) for card in built_in_cards() for split in card.splits]
ALIASES = [(card, alias) for card in built_in_cards() for alias in card.aliases]


@pytest.mark.parametrize(("card", "split"), SPLITS, ids=[f"{card.name}_{split}" for card, split in SPLITS])
def test_every_split_of_every_card_registers(card, split, tmp_path):
    (name,) = resolve_datasets([f"{card.name}_{split}"], tmp_path)
    metadata = MetadataCatalog.get(name)
    assert (metadata.class_strings, metadata.card, metadata.split) == (card.classes, card, split)
    assert len(metadata.stuff_classes) == len(metadata.stuff_colors) == len(card.classes)
    assert (metadata.ignore_label, metadata.evaluator_type) == (255, "sem_seg")
    assert Path(metadata.image_root) == tmp_path / card.splits[split].images
    assert Path(metadata.sem_seg_root) == tmp_path / card.splits[split].labels
    with pytest.raises(DataError, match="no folder"):
        DatasetCatalog.get(name)


@pytest.mark.parametrize(("card", "alias"), ALIASES, ids=[alias for _, alias in ALIASES])
def test_every_alias_is_the_same_data_under_its_own_name(card, alias, tmp_path):
    names = resolve_datasets([alias, f"{card.name}_{card.aliases[alias]}"], tmp_path)
    assert names[0] == alias
    assert MetadataCatalog.get(alias).image_root == MetadataCatalog.get(names[1]).image_root
    assert MetadataCatalog.get(alias).class_strings == card.classes


def test_names_of_the_original_projects_are_known():
    names = {
        "LandDiscover_50K", "LandDiscover_10K", "potsdam_all", "FLAIR_test", "FAST_val", "FloodNet", "sota",
        "Potsdam_my_dataset", "Globe230k_my_dataset", "DLRSD_train_sem_seg", "DLRSD_all_sem_seg", "iSAID_val_sem_seg",
        "Vaihingen_all_sem_seg", "LoveDA_all_sem_seg", "uavid_all_sem_seg", "UDD5_all_sem_seg", "VDD_all_sem_seg",
    }  # fmt: skip
    assert names <= {alias for _, alias in ALIASES}
    assert len(ALIASES) == 33


def test_unknown_name_lists_the_nearest():
    with pytest.raises(DataError, match=r"unknown data set 'hg_potsdam_val'\. The nearest names are hg_potsdam_5_val"):
        resolve_datasets(["hg_potsdam_val"])


def test_a_single_text_is_no_list():
    with pytest.raises(DataError, match="list of names"):
        resolve_datasets("hg_potsdam_5_val")


def test_root_comes_from_argument_then_environment_then_default(monkeypatch, tmp_path):
    assert data_root() == Path("datasets")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("here") == Path("here")


def test_changed_root_registers_anew_and_the_same_root_does_not(tmp_path):
    name = "hg_loveda_6_val"
    resolve_datasets([name], tmp_path / "a")
    first = MetadataCatalog.get(name)
    resolve_datasets([name], tmp_path / "a")
    assert MetadataCatalog.get(name) is first
    resolve_datasets([name], tmp_path / "b")
    assert Path(MetadataCatalog.get(name).image_root) == tmp_path / "b/LoveDA_512/img_dir/val"


def test_own_card_loads_relative_to_its_folder(town, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert resolve_datasets([str(town), f"{town}:train", "my data/town.yaml:train"]) == ["town_train"] * 3
    records = DatasetCatalog.get("town_train")
    assert len(records) == 7
    assert all(os.path.exists(record["file_name"]) and record["dataset"] == "town_train" for record in records)
    assert MetadataCatalog.get("town_train").class_strings == ("building|house", "road", "other")
    assert MetadataCatalog.get("town_train").stuff_classes == ["building", "road", "other"]


def test_registered_name_of_an_own_card_resolves_again(town):
    names = resolve_datasets([str(town)])
    assert resolve_datasets(names, "elsewhere") == names


def test_edited_card_is_registered_anew(town, write_card):
    resolve_datasets([str(town)])
    write_card(classes=["roof", "street", "rest"])
    assert resolve_datasets([str(town)]) == ["town_train"]
    assert MetadataCatalog.get("town_train").class_strings == ("roof", "street", "rest")


def test_two_cards_with_one_name_stay_apart(town, write_card):
    other = write_card("renamed.yaml", classes=["roof", "street", "rest"])
    first, second = resolve_datasets([str(town), str(other)])
    assert first == "town_train"
    assert second.startswith("town_train@")
    assert resolve_datasets([str(other), str(town)]) == [second, first]
    assert MetadataCatalog.get(first).class_strings[0] == "building|house"
    assert MetadataCatalog.get(second).class_strings[0] == "roof"
    assert {record["dataset"] for record in DatasetCatalog.get(second)} == {second}


@pytest.mark.parametrize(("name", "split"), [("hg_potsdam_5", "val"), ("FLAIR", "test"), ("town", "train")])
def test_own_card_does_not_shadow_a_known_name(write_card, monkeypatch, name, split):
    monkeypatch.setenv("OVRS_DATASETS", str(write_card("listed.yaml")))
    card = write_card("own.yaml", name=name, splits={split: {"images": "i", "labels": "l"}})
    own, known = resolve_datasets([str(card), f"{name}_{split}"])
    assert own.startswith(f"{name}_{split}@")
    assert MetadataCatalog.get(own).card.path == card
    assert MetadataCatalog.get(known).card.path != card


def test_split_must_be_named_when_there_are_several(write_card):
    splits = {name: {"images": "i", "labels": "l"} for name in ("train", "val")}
    card = write_card(splits=splits)
    assert resolve_datasets([f"{card}:val"]) == ["town_val"]
    with pytest.raises(DataError, match=r"has 2 splits.*town\.yaml:train, .*town\.yaml:val"):
        resolve_datasets([str(card)])
    with pytest.raises(DataError, match=r"no split 'vall'\. The nearest is val\."):
        resolve_datasets([f"{card}:vall"])
    with pytest.raises(DataError, match="add splits"):
        resolve_datasets([str(write_card(splits={}))])


def test_cards_in_the_environment_have_names(town, monkeypatch, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "village.yml").write_text(
        "name: village\nclasses: [a, b]\nsplits: {val: {images: i, labels: l}}\naliases: {hamlet: val}\n"
    )
    monkeypatch.setenv("OVRS_DATASETS", os.pathsep.join([str(town), str(tmp_path / "more")]))
    assert resolve_datasets(["town_train", "village_val", "hamlet"]) == ["town_train", "village_val", "hamlet"]
    assert Path(MetadataCatalog.get("hamlet").image_root) == tmp_path / "more" / "i"
    monkeypatch.setenv("OVRS_DATASETS", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"\$OVRS_DATASETS lists .*gone.* does not exist"):
        resolve_datasets(["hamlet", "hg_potsdam_5_val"])


def test_card_in_the_environment_may_not_take_a_known_name(write_card, monkeypatch):
    card = write_card(aliases={"FLAIR_test": "train"})
    monkeypatch.setenv("OVRS_DATASETS", str(card))
    with pytest.raises(DataError, match=r"town\.yaml and .*gsnet_flair_12\.yaml both call a data set 'FLAIR_test'"):
        resolve_datasets(["hg_potsdam_5_val"])


def test_data_sets_of_other_code_are_not_taken_over():
    DatasetCatalog.register("FAST_val", list)
    with pytest.raises(DataError, match=r"by other code.*gsnet_fast_37_val"):
        resolve_datasets(["FAST_val"])
    DatasetCatalog.register("foreign", list)
    with pytest.raises(DataError, match=r"without class strings; add them: .*stuff_classes="):
        resolve_datasets(["foreign"])


def test_list_says_what_is_there(tmp_path):
    for part in ("image", "mask"):
        (tmp_path / "FLAIR/test" / part).mkdir(parents=True)
    summaries = {summary.name: summary for summary in list_datasets(tmp_path)}
    assert len(summaries) == len(SPLITS)
    assert [name for name, summary in summaries.items() if summary.present] == ["gsnet_flair_12_test"]
    assert summaries["gsnet_flair_12_test"].aliases == ("FLAIR_test",)
    assert summaries["gsnet_flair_12_test"].num_classes == 12


def test_card_that_lies_elsewhere_is_said_with_the_folder_searched(town, monkeypatch, tmp_path):
    monkeypatch.chdir(town.parent)
    with pytest.raises(
        DataError,
        match=rf"twon\.yaml does not exist: the folder {town.parent} was searched, it holds town\.yaml",
    ):
        resolve_datasets(["twon.yaml:train"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="it holds no YAML file"):
        resolve_datasets(["town.yaml:train"])
    with pytest.raises(DataError, match="which does not exist"):
        resolve_datasets(["gone/town.yaml"])
