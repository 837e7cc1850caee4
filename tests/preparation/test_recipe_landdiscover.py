"""LandDiscover50K: five sources, one table of ids, names that tell where an image is from; and links to parts of it."""

import io
import json
import logging
from collections import Counter

import numpy as np
import pytest
from miniatures import card_of, written
from PIL import Image

from ovrs.data import DataError, built_in_cards
from ovrs.preparation import Tiling, check, drawn, find_card
from ovrs.structures import IGNORE_LABEL

NAME = "gsnet_landdiscover50k_40"
NONE = IGNORE_LABEL

# Indices of the 40 classes by the sources' own ids, written down by hand from the table of the preparation.
OPENEARTHMAP = [NONE, 1, 2, 3, 4, 5, 6, 7, 8]
LOVEDA = [NONE, NONE, 8, 4, 6, 10, 9, 7]
SOTA = [12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]
SIOR = [16, 28, 22, 19, 15, 30, 31, 32, 33, 34, 20, 26, 35, 17, 36, 25, 23, 37, 38, 39]
# DeepGlobe: urban, agriculture, rangeland, forest, water, barren, unknown.
COLOURS = [(0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
DEEPGLOBE = [11, 7, 2, 9, 6, 10, NONE]

SIDE = 80
SHAPE = (SIDE, SIDE)
STEMS = {
    *("oem_aachen_1", "oem_dolnoslaskie_7", "loveda_0", "loveda_2522", "sota_P0000__1.0__0___0", "sior_00001"),
    *("sior_11726", "dg_119_0_40_0_40", "dg_119_0_40_40_80", "dg_119_40_80_0_40", "dg_119_40_80_40_80"),
}


@pytest.fixture
def card():
    """The card, with quadrants of 40 instead of 1224 pixels and archives of any checksum."""
    merge_map = card_of(NAME).source["merge_map"]
    deepglobe = {**merge_map["deepglobe"], "tiling": {"size": 40, "stride": 40, "edge": "exact"}}
    return card_of(NAME, merge_map={**merge_map, "deepglobe": deepglobe}, md5=None)


def ids(make, count, seed, background=None):
    """Return ids 0..count-1 in blocks, with one block more of 255 where there is a background."""
    drawn_ids = make.classes(*SHAPE, count + (background is not None), seed, block=8)
    return drawn_ids if background is None else np.where(drawn_ids == count, np.uint8(background), drawn_ids)


@pytest.fixture
def sources(make):
    """{source: {file: bytes}} as the authors distribute them, with much that must be left alone."""

    def png(pixels):
        return make.encoded(pixels, "PNG")

    def tif(pixels):
        return make.encoded(pixels, "TIFF")

    def image(seed):
        return make.image(*SHAPE, seed)

    oem = "OpenEarthMap_wo_xBD"
    return {
        "openearthmap": {
            f"{oem}/train.txt": b"aachen_1.tif\n",
            f"{oem}/val.txt": b"dolnoslaskie_7.tif\n",
            f"{oem}/test.txt": b"aachen_2.tif\n",
            f"{oem}/aachen/images/aachen_1.tif": tif(image(1)),
            f"{oem}/aachen/labels/aachen_1.tif": tif(ids(make, 9, 1)),
            f"{oem}/aachen/images/aachen_2.tif": tif(image(9)),
            f"{oem}/dolnoslaskie/images/dolnoslaskie_7.tif": tif(image(2)),
            f"{oem}/dolnoslaskie/labels/dolnoslaskie_7.tif": tif(ids(make, 9, 2)),
        },
        "loveda": {
            "Train/Rural/images_png/0.png": png(image(3)),
            "Train/Rural/masks_png/0.png": png(ids(make, 8, 3)),
            "Val/Urban/images_png/2522.png": png(image(4)),
            "Val/Urban/masks_png/2522.png": png(ids(make, 8, 4)),
            "Test/Urban/images_png/4191.png": png(image(9)),
        },
        "deepglobe": {
            "train/119_sat.jpg": make.encoded(image(5), "JPEG"),
            "train/119_mask.png": png(make.painted(ids(make, 7, 5), COLOURS)),
            "valid/120_sat.jpg": make.encoded(image(9), "JPEG"),
        },
        "sota": {
            "SOTA/train.txt": b"P0000__1.0__0___0\n",
            "SOTA/trainval/images/P0000__1.0__0___0.png": png(image(6)),
            "SOTA/trainval/hbox_segs_init/gray/P0000__1.0__0___0.png": png(ids(make, 18, 6, 255)),
            "SOTA/trainval/hbox_segs_init/color/P0000__1.0__0___0.png": png(image(9)),
        },
        "sior": {
            "SIOR/valid.txt": b"00001\n",
            "SIOR/JPEGImages-trainval/00001.jpg": make.encoded(image(7), "JPEG"),
            "SIOR/JPEGImages-test/11726.jpg": make.encoded(image(8), "JPEG"),
            "SIOR/hbox_segs_trainvaltest_init/gray/00001.png": png(ids(make, 20, 7, 255)),
            "SIOR/hbox_segs_trainvaltest_init/gray/11726.png": png(ids(make, 20, 8, 255)),
            "SIOR/hbox_segs_trainvaltest_init/color/11726.png": png(image(9)),
        },
    }


@pytest.fixture
def folders(make, sources):
    """The sources as unpacked folders."""
    return [make.tree(f"{name} here", files) for name, files in sources.items()]


@pytest.fixture
def merged(card, folders, prepared, out):
    """The folder of a prepared LandDiscover50K."""
    prepared(card, *folders)
    return out / "LandDiscover50K"


def truth(table, values):
    """Return class indices; 255 is background everywhere."""
    return np.array([*table, *[NONE] * (256 - len(table))], np.uint8)[values]


def test_five_archives_become_one_set_of_40_classes(card, sources, make, prepared, load):
    prepared(card, *(make.archive(f"{name}.zip", files) for name, files in sources.items()))
    pairs = load(f"{NAME}_train")
    assert set(pairs) == STEMS
    expected = {
        "oem_aachen_1": (OPENEARTHMAP, ids(make, 9, 1)),
        "oem_dolnoslaskie_7": (OPENEARTHMAP, ids(make, 9, 2)),
        "loveda_0": (LOVEDA, ids(make, 8, 3)),
        "loveda_2522": (LOVEDA, ids(make, 8, 4)),
        "sota_P0000__1.0__0___0": (SOTA, ids(make, 18, 6, 255)),
        "sior_00001": (SIOR, ids(make, 20, 7, 255)),
        "sior_11726": (SIOR, ids(make, 20, 8, 255)),
    }
    for stem, (table, values) in expected.items():
        np.testing.assert_array_equal(pairs[stem][1], truth(table, values))
    for stem, seed in {"oem_aachen_1": 1, "loveda_2522": 4, "sota_P0000__1.0__0___0": 6}.items():
        np.testing.assert_array_equal(pairs[stem][0], make.image(*SHAPE, seed))


def test_background_is_stored_as_0_and_jpeg_images_become_png(merged, make):
    with Image.open(merged / "GT_ID/sior_00001.png") as stored:
        expected = np.where(truth(SIOR, ids(make, 20, 7, 255)) == NONE, 0, truth(SIOR, ids(make, 20, 7, 255)))
        np.testing.assert_array_equal(np.asarray(stored), expected)
    with Image.open(merged / "TR_Image/sior_00001.png") as stored:
        original = Image.open(io.BytesIO(make.encoded(make.image(*SHAPE, 7), "JPEG")))
        assert stored.format == "PNG"
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(original))


def test_deepglobe_is_cut_in_quadrants_and_read_by_a_threshold(card, sources, make, prepared, load):
    classes = ids(make, 7, 5)
    painted = make.painted(classes, COLOURS)
    painted[::3] = np.where(painted[::3] > 127, 200, 90)  # masks are not pure
    sources["deepglobe"]["train/119_mask.png"] = make.encoded(painted, "PNG")
    prepared(card, make.tree("deepglobe", sources["deepglobe"]))
    pairs = load(f"{NAME}_train")
    assert set(pairs) == {stem for stem in STEMS if stem.startswith("dg_")}  # 120 is one of those without labels
    whole = np.asarray(Image.open(io.BytesIO(make.encoded(make.image(*SHAPE, 5), "JPEG"))))
    for top in (0, 40):
        for left in (0, 40):
            image, labels = pairs[f"dg_119_{top}_{top + 40}_{left}_{left + 40}"]
            window = slice(top, top + 40), slice(left, left + 40)
            np.testing.assert_array_equal(image, whole[window])
            np.testing.assert_array_equal(labels, truth(DEEPGLOBE, classes[window]))


def test_originals_of_deepglobe_make_four_quadrants():
    tiling = Tiling.of_facts(card_of(NAME).source["merge_map"]["deepglobe"]["tiling"], "the card")
    assert tiling.windows(2448, 2448) == [
        *((0, 1224, 0, 1224), (0, 1224, 1224, 2448), (1224, 2448, 0, 1224), (1224, 2448, 1224, 2448))
    ]


def test_deepglobe_image_of_another_size_is_refused(card, sources, make, prepared):
    sources["deepglobe"]["train/119_sat.jpg"] = make.encoded(make.image(90, 80), "JPEG")
    sources["deepglobe"]["train/119_mask.png"] = make.encoded(np.zeros((90, 80, 3), np.uint8), "PNG")
    with pytest.raises(DataError, match=r"119_sat\.jpg is 80 x 90 .*do not fill 90 pixels"):
        prepared(card, make.tree("deepglobe", sources["deepglobe"]))


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("openearthmap", "aachen/labels/aachen_1.tif", r"1 images without labels: .*aachen_1\.tif"),
        ("loveda", "Train/Rural/masks_png/0.png", r"1 images without labels: .*images_png/0\.png"),
        ("sota", "trainval/images/P0000__1.0__0___0.png", r"1 labels without image: .*gray/P0000__1\.0__0___0\.png"),
        ("sior", "gray/11726.png", r"1 images without labels: .*JPEGImages-test/11726\.jpg"),
    ],
)
def test_file_without_partner_is_named(card, sources, make, prepared, name, missing, message):
    files = {file: content for file, content in sources[name].items() if not file.endswith(missing)}
    assert len(files) == len(sources[name]) - 1
    with pytest.raises(DataError, match=message):
        prepared(card, make.tree(name, files))


def test_labelled_folder_of_deepglobe_must_be_complete(card, sources, make, prepared):
    sources["deepglobe"]["train/121_sat.jpg"] = sources["deepglobe"]["valid/120_sat.jpg"]
    with pytest.raises(DataError, match=r"1 images without labels: .*train/121_sat\.jpg"):
        prepared(card, make.tree("deepglobe", sources["deepglobe"]))


def test_pictures_of_labels_are_refused(card, sources, make, prepared):
    gray = "SIOR/hbox_segs_trainvaltest_init/gray/00001.png"
    sources["sior"][gray] = make.encoded(make.image(*SHAPE), "PNG")
    with pytest.raises(DataError, match=r"gray/00001\.png have the mode RGB, but one integer per pixel"):
        prepared(card, make.tree("download", sources["sior"]))


def test_value_that_the_table_does_not_list_is_refused(card, sources, make, prepared):
    values = ids(make, 18, 6, 255)
    values[70, 3] = 18
    sources["sota"]["SOTA/trainval/hbox_segs_init/gray/P0000__1.0__0___0.png"] = make.encoded(values, "PNG")
    with pytest.raises(
        DataError, match=r"P0000__1\.0__0___0\.png hold .* 18 \(1 pixels, the first at row 70, column 3"
    ):
        prepared(card, make.tree("download", sources["sota"]))


def test_images_of_xbd_that_are_missing_are_told(card, sources, make, prepared, load, caplog):
    sources["openearthmap"]["OpenEarthMap_wo_xBD/train.txt"] = b"aachen_1.tif\nmexico_3.tif\n"
    prepared(card, make.tree("download", sources["openearthmap"]))
    assert sorted(load(f"{NAME}_train")) == ["oem_aachen_1", "oem_dolnoslaskie_7"]
    assert "1 of 3 listed images are not in the source: mexico_3. The images of xBD" in caplog.text


def test_source_that_is_missing_is_told_and_may_follow(card, folders, prepared, load, out, caplog):
    prepared(card, *folders[:3])
    assert "the source holds nothing of sota and sior" in caplog.text
    assert {stem.partition("_")[0] for stem in load(f"{NAME}_train")} == {"oem", "loveda", "dg"}
    before = written(out)
    caplog.clear()
    prepared(card, *folders)
    assert set(load(f"{NAME}_train")) == STEMS
    assert "the source holds nothing" not in caplog.text
    after = written(out)
    assert all(after[path] == before[path] for path in before if path.endswith(".png"))


def test_folder_of_something_else_is_refused(card, make, prepared):
    with pytest.raises(DataError, match="holds none of openearthmap, loveda, deepglobe, sota, sior"):
        prepared(card, make.tree("holidays", {"beach.jpg": b""}))


def test_archives_of_loveda_are_known_by_their_checksums(make, sources, prepared, out):
    archive = make.archive("Train.zip", sources["loveda"])
    with pytest.raises(DataError, match=r"Train\.zip has the MD5 sum"):
        prepared(card_of(NAME), archive)
    assert not out.exists()


def test_cards_agree_about_the_parts():
    merge_map = card_of(NAME).source["merge_map"]
    names = {"openearthmap": "oem", "loveda": "loveda", "deepglobe": "deepglobe", "sota": "sota", "sior": "sior"}
    for part, name in names.items():
        source = card_of(f"gsnet_{name}_ld40").source
        assert (source["prefix"], source["counts"]["train"]) == (
            merge_map[part]["prefix"],
            merge_map[part]["images_used"],
        )
    total = card_of(NAME).source["counts"]["train"]
    assert sum(merge_map[part]["images_used"] for part in names) == total == 51846
    for thousands in (10, 20, 30, 40):
        source = card_of(f"gsnet_landdiscover_{thousands}k_40").source
        assert source["draw"] == {"seed": 0, "count": 1000 * thousands, "of": total}


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("oem", "oem_"), ("loveda", "loveda_"), ("deepglobe", "dg_"), ("sota", "sota_"), ("sior", "sior_")],
)
def test_part_links_to_the_images_of_one_source_and_shares_labels(merged, prepared, load, out, name, prefix):
    before = written(merged)
    summary = prepared(card_of(f"gsnet_{name}_ld40"), merged)
    pairs, whole = load(f"gsnet_{name}_ld40_train"), load(f"{NAME}_train")
    assert set(pairs) == {stem for stem in STEMS if stem.startswith(prefix)}
    for stem, (image, labels) in pairs.items():
        np.testing.assert_array_equal(image, whole[stem][0])
        np.testing.assert_array_equal(labels, whole[stem][1])
        assert (out / name / f"{stem}.png").samefile(merged / "TR_Image" / f"{stem}.png")
    assert written(merged) == before
    assert summary.bytes == 0


def some(count, of=11):
    """Return the card of 10,000 images, with fewer."""
    return card_of("gsnet_landdiscover_10k_40", draw={"seed": 0, "count": count, "of": of}, counts={"train": count})


def test_images_are_drawn_by_a_seed_and_it_is_said_so(merged, prepared, load, caplog):
    with caplog.at_level(logging.INFO):
        prepared(some(4), merged)
    assert set(load("gsnet_landdiscover_10k_40_train")) == drawn(STEMS, 4, seed=0)
    assert "which images the paper drew is not published; 4 of 11 are drawn (seed 0)" in caplog.text
    assert "so they are others" not in caplog.text


def test_drawing_from_an_incomplete_set_is_told(merged, prepared, caplog):
    prepared(some(4, of=12), merged)
    assert "drawn from 11 instead of 12, so they are others than those of the complete set" in caplog.text


def test_more_images_than_there_are_cannot_be_drawn(merged, prepared):
    with pytest.raises(DataError, match="takes 12 images out of LandDiscover50K, which has 11 here"):
        prepared(some(12), merged)


def test_account_of_a_part_tells_its_pixels(merged, prepared, load, out):
    prepared(card_of("gsnet_sior_ld40"), merged)
    manifest = json.loads((out / "sior/manifest-gsnet_sior_ld40.json").read_text())
    labels = np.stack([labels for _, labels in load("gsnet_sior_ld40_train").values()])
    counts = Counter(labels.ravel().tolist())
    assert manifest["counts"] == {"train": 2}
    assert manifest["pixels"]["train"]["(ignored)"] == counts[NONE]
    assert manifest["pixels"]["train"]["windmill"] == counts[39] > 0


def test_second_run_of_a_part_writes_nothing(merged, prepared, out):
    prepared(some(4), merged)
    before = written(out)
    assert prepared(some(4), merged).done == 4
    assert written(out) == before


def test_part_of_a_set_elsewhere_is_refused(merged, prepared, make, out):
    elsewhere = make.tree(
        "LandDiscover50K", {path.relative_to(merged).as_posix(): path.read_bytes() for path in merged.rglob("*.png")}
    )
    with pytest.raises(DataError, match=r"shares the labels in .*my data/LandDiscover50K/GT_ID, but the source has"):
        prepared(card_of("gsnet_sior_ld40"), elsewhere)
    assert not list(out.glob("sior/*.png"))


def test_images_that_are_still_packed_are_refused(merged, prepared, make):
    images = {path.name: path.read_bytes() for path in (merged / "TR_Image").iterdir()}
    archive = make.archive("TR_Image.zip", images)
    with pytest.raises(DataError, match=r"but the source has .*TR_Image\.zip: .*give the folder .*LandDiscover50K as"):
        prepared(card_of("gsnet_sior_ld40"), archive, merged / "GT_ID")


def test_part_without_any_image_is_refused(card, folders, prepared, out):
    prepared(card, *folders[:3])
    with pytest.raises(DataError, match=r"no image of LandDiscover50K starts with 'sior_'"):
        prepared(card_of("gsnet_sior_ld40"), out / "LandDiscover50K")


def test_labels_of_no_class_are_refused(merged, prepared):
    Image.fromarray(np.full(SHAPE, 40, np.uint8)).save(merged / "GT_ID/sior_00001.png")
    with pytest.raises(DataError, match=r"GT_ID/sior_00001\.png hold .* 40 \(6400 pixels"):
        prepared(card_of("gsnet_sior_ld40"), merged)


def test_check_of_a_part_minds_its_images_and_not_the_other_labels(merged, prepared, out):
    card = card_of("gsnet_sior_ld40", counts={})
    prepared(card, merged)
    report = check(card, out, workers=1)
    assert report.problems == []
    assert report.splits[0].pairs == 2
    (out / "sior/sota_P0000__1.0__0___0.png").write_bytes((out / "sior/sior_00001.png").read_bytes())
    (out / "sior/sior_11726.png").unlink()
    problems = "\n".join(check(card, out, workers=1).problems)
    assert "1 file(s) are missing: sior/sior_11726.png" in problems
    assert "1 file(s) were not written by the preparation: sior/sota_P0000__1.0__0___0.png" in problems


@pytest.mark.parametrize(
    ("alias", "others"),
    [("loveda", "hg_loveda_6 or rskt_loveda_8 or segearth_loveda_7"), ("deepglobe", "src_deepglobe_6")],
)
def test_original_of_a_set_is_not_taken_for_a_prepared_one(alias, others, make, prepared):
    card = find_card(alias, built_in_cards())
    download = make.tree("LoveDA/Train/Rural", {"images_png/1.png": b"", "masks_png/1.png": b""})
    with pytest.raises(DataError, match=rf"\({alias}\) is a part of it: .*_landdiscover50k_40 .* as {others}\."):
        prepared(card, download)
