import pytest

from ovrs.data.card import load_card
from ovrs.data.pairing import list_records
from ovrs.errors import DataError


def records(card_path):
    card = load_card(card_path)
    return list_records("town_train", card, card.splits["train"], card_path.parent)


def fill(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_pairs_share_their_stem_and_are_sorted(town):
    found = records(town)
    assert [record["stem"] for record in found] == [f"{number:03d}" for number in range(7)]
    assert found[2] == {
        "file_name": str(town.parent / "images" / "002.png"),
        "sem_seg_file_name": str(town.parent / "labels" / "002.png"),
        "dataset": "town_train",
        "stem": "002",
    }


def test_both_kinds_may_lie_in_one_folder(write_card):
    splits = {"train": {"images": "all", "labels": "all", "image_suffix": "_sat.jpg", "label_suffix": "_mask.png"}}
    card = write_card(splits=splits)
    fill(card.parent / "all", "1_sat.jpg", "1_mask.png", "2_sat.jpg", "2_mask.png", ".hidden_sat.jpg")
    assert [record["stem"] for record in records(card)] == ["1", "2"]


def test_label_stems_can_be_rewritten(write_card):
    splits = {"train": {"images": "images", "labels": "labels", "label_stem_replace": {"MSK_": "IMG_", "_lab": ""}}}
    card = write_card(splits=splits)
    fill(card.parent / "images", "IMG_1.png", "2.png")
    fill(card.parent / "labels", "MSK_1.png", "2_lab.png")
    assert [record["stem"] for record in records(card)] == ["2", "IMG_1"]


def test_split_without_labels_lists_images_only(write_card):
    card = write_card(splits={"train": {"images": "images", "labels": None}})
    fill(card.parent / "images", "1.png")
    assert [set(record) for record in records(card)] == [{"file_name", "dataset", "stem"}]


def test_stems_choose_images_from_a_card_or_a_file(write_card, town):
    split = {"images": "images", "labels": "labels"}
    card = write_card(splits={"train": {**split, "stems": ["004", "001"]}})
    assert [record["stem"] for record in records(card)] == ["001", "004"]
    (card.parent / "list.txt").write_text("002\n\n 006 \n")
    card = write_card(splits={"train": {**split, "stem_file": "list.txt"}})
    assert [record["stem"] for record in records(card)] == ["002", "006"]


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (["001", "nine"], "1 listed stem.* without image.* nine"),
        (["001", "001"], "more than once: 001"),
        ([], "no stem"),
    ],
)
def test_bad_stems_are_refused(write_card, town, stems, message):
    card = write_card(splits={"train": {"images": "images", "labels": "labels", "stems": stems}})
    with pytest.raises(DataError, match=message):
        records(card)


def test_missing_stem_file_is_named(write_card, town):
    card = write_card(splits={"train": {"images": "images", "labels": "labels", "stem_file": "gone.txt"}})
    with pytest.raises(DataError, match=r"gone\.txt cannot be read"):
        records(card)


def test_image_without_label_is_named(town):
    for number in range(1, 7):
        (town.parent / "labels" / f"{number:03d}.png").unlink()
    with pytest.raises(DataError, match=r"6 image\(s\) without label.*labels.* 001, 002, 003, 004, 005 and 1 more"):
        records(town)


def test_label_without_image_is_named_unless_the_card_allows_it(town, write_card):
    fill(town.parent / "labels", "extra.png")
    with pytest.raises(DataError, match=r"1 label\(s\) without image.* extra"):
        records(town)
    card = write_card(splits={"train": {"images": "images", "labels": "labels", "allow_unpaired_labels": True}})
    assert len(records(card)) == 7


def test_two_files_with_one_stem_are_named(write_card, town):
    split = {"images": "images", "labels": "labels", "label_stem_replace": {"_lab": ""}}
    fill(town.parent / "labels", "001_lab.png")
    with pytest.raises(DataError, match=r"001(_lab)?\.png and .*001(_lab)?\.png both have the stem '001'"):
        records(write_card(splits={"train": split}))


def test_missing_folder_is_named_with_the_remedy(write_card):
    card = write_card()
    with pytest.raises(DataError, match=r"town\.yaml.*no folder .*images.*DETECTRON2_DATASETS"):
        records(card)


def test_empty_folder_is_named(write_card):
    card = write_card()
    fill(card.parent / "images", "notes.txt")
    with pytest.raises(DataError, match=r"no file in .*images ends with '\.png'"):
        records(card)


def test_suffix_that_differs_only_in_case_is_pointed_out(town):
    fill(town.parent / "images", "900.PNG")
    with pytest.raises(DataError, match=r"1 files in .*images end like '\.png' except for the case: 900\.PNG"):
        records(town)


def test_remedy_for_other_case_is_a_list_of_suffixes(town, write_card):
    fill(town.parent / "images", "900.PNG")
    fill(town.parent / "labels", "900.png")
    with pytest.raises(DataError, match=r"it may be a list, \[\.PNG, \.png\]"):
        records(town)
    assert len(records(write_card(image_suffix=[".PNG", ".png"]))) == 8


def test_several_suffixes_of_a_split_are_one_set(write_card):
    split = {
        "images": "i",
        "labels": "l",
        "image_suffix": [".tif", ".tiff", "_x.tif"],
        "label_suffix": [".png", ".PNG"],
    }
    card = write_card(splits={"train": split})
    fill(card.parent / "i", "1.tif", "2.tiff", "3_x.tif")
    fill(card.parent / "l", "1.PNG", "2.png", "3.png")
    found = records(card)
    assert [record["stem"] for record in found] == ["1", "2", "3"]  # the longest suffix counts
    assert found[0]["sem_seg_file_name"].endswith("1.PNG")
    fill(card.parent / "i", "1.tiff")
    with pytest.raises(DataError, match="both have the stem '1'"):
        records(card)


@pytest.mark.parametrize(("images", "labels"), [(".png", "_mask.png"), ("_sat.png", ".png")])
def test_masks_beside_images_are_not_counted_as_images(write_card, images, labels):
    card = write_card(
        splits={"train": {"images": "a", "labels": "b/../a", "image_suffix": images, "label_suffix": labels}}
    )
    (card.parent / "b").mkdir()
    fill(card.parent / "a", f"1{images}", f"1{labels}", f"2{images}", f"2{labels}")
    assert [record["stem"] for record in records(card)] == ["1", "2"]
    fill(card.parent / "a", f"3{images}")
    with pytest.raises(DataError, match=r"1 image\(s\) without label.* 3"):
        records(card)


def test_image_and_mask_of_one_name_in_one_folder_are_refused(write_card):
    card = write_card(splits={"train": {"images": "a", "labels": "a"}})
    fill(card.parent / "a", "1.png")
    with pytest.raises(DataError, match=r"lie in one folder.*image_suffix, label_suffix"):
        records(card)


@pytest.mark.parametrize(
    "content",
    ["\ufeff002\r\n006\r\n".encode(), "002\n006\n".encode("utf-16"), "\u200b002\u200b\n\u00a0006\n".encode()],
    ids=["byte order mark", "UTF-16", "spaces of no width"],
)
def test_invisible_characters_of_a_stem_file_do_not_matter(write_card, town, content):
    (town.parent / "list.txt").write_bytes(content)
    card = write_card(splits={"train": {"images": "images", "labels": "labels", "stem_file": "list.txt"}})
    assert [record["stem"] for record in records(card)] == ["002", "006"]


def test_invisible_characters_within_a_stem_are_shown(write_card, town):
    (town.parent / "list.txt").write_text("0\u200b02\n")
    card = write_card(splits={"train": {"images": "images", "labels": "labels", "stem_file": "list.txt"}})
    with pytest.raises(DataError, match=r"for the stems 0\\u200b02\."):
        records(card)


def test_stem_file_that_is_no_text_is_named(write_card, town):
    (town.parent / "list.txt").write_bytes(b"\x93002")
    card = write_card(splits={"train": {"images": "images", "labels": "labels", "stem_file": "list.txt"}})
    with pytest.raises(DataError, match=r"list\.txt is no text in UTF-8"):
        records(card)
