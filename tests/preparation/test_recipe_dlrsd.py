"""DLRSD: palette files read as ids, a drawn split, odd sizes, names in any case."""

import io
import logging

import numpy as np
import pytest
from miniatures import card_of
from PIL import Image

from ovrs.data import DataError
from ovrs.preparation import drawn

SCENES = ["airplane", "beach"]
COUNT = 5  # images per scene; one of them is a fifth
SHAPES = {"airplane03": (250, 242)}  # UC Merced is not all squares of 256
PALETTE = [(200, 3 * index, 250 - index) for index in range(18)]  # its brightness is no id


@pytest.fixture
def images(make):
    """Return {(scene, stem): (image, ids 1..17)}."""
    stems = [(scene, f"{scene}{number:02}") for scene in SCENES for number in range(COUNT)]
    return {
        (scene, stem): (
            # smooth: JPEG keeps it nearly as it is
            make.image(*SHAPES.get(stem, (256, 256)), seed) // 4 + 10 * seed,
            make.classes(*SHAPES.get(stem, (256, 256)), 17, seed) + np.uint8(1),
        )
        for seed, (scene, stem) in enumerate(stems)
    }


@pytest.fixture
def files(make, images):
    """The files of the download."""
    found = {}
    for (scene, stem), (image, ids) in images.items():
        found[f"DLRSD/Images/{scene}/{stem}.tif"] = make.encoded(image, "TIFF")
        found[f"DLRSD/Labels/{scene}/{stem}.png"] = make.encoded(ids, "PNG", PALETTE)
    return found


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_palette_files_give_ids_and_images_become_jpeg(files, images, make, prepared, load, out, kind):
    source = make.archive("DLRSD.zip", files) if kind == "archive" else make.tree("download", files)
    assert Image.open(io.BytesIO(files["DLRSD/Labels/beach/beach01.png"])).mode == "P"
    prepared(card_of("rskt_dlrsd_17"), source)
    pairs = load("rskt_dlrsd_17_all")
    assert sorted(pairs) == sorted(stem for _, stem in images)
    for (_, stem), (image, ids) in images.items():
        if stem not in SHAPES:
            np.testing.assert_array_equal(pairs[stem][1], ids - 1)
            assert np.abs(pairs[stem][0].astype(int) - image).mean() < 2
    assert all(path.read_bytes()[:2] == b"\xff\xd8" for path in (out / "DLRSD/imgs").iterdir())


def test_odd_image_is_resized_together_with_its_labels(files, images, make, prepared, load):
    prepared(card_of("rskt_dlrsd_17"), make.tree("download", files))
    image, ids = images["airplane", "airplane03"]
    found, labels = load("rskt_dlrsd_17_all")["airplane03"]
    # the nearest pixel of the original is the one below the centre of the new one
    rows = ((np.arange(256) + 0.5) * 250 / 256).astype(int)
    columns = ((np.arange(256) + 0.5) * 242 / 256).astype(int)
    np.testing.assert_array_equal(labels, ids[np.ix_(rows, columns)] - 1)
    assert found.shape == (256, 256, 3)
    assert np.abs(found.astype(int) - image[np.ix_(rows, columns)]).mean() < 2


def test_a_fifth_of_every_scene_is_for_validation(files, make, prepared, load, out, caplog):
    with caplog.at_level(logging.INFO):
        prepared(card_of("rskt_dlrsd_17"), make.tree("download", files))
    train, val = load("rskt_dlrsd_17_train"), load("rskt_dlrsd_17_val")
    for scene in SCENES:
        stems = [f"{scene}{number:02}" for number in range(COUNT)]
        assert {stem for stem in val if stem.startswith(scene)} == drawn(stems, 1, seed=0)
        assert {stem for stem in train if stem.startswith(scene)} == set(stems) - drawn(stems, 1, seed=0)
    for split in ("train", "val"):  # no second copy on the disk
        for path in (out / "DLRSD_split" / split).rglob("*.*"):
            assert path.samefile(out / "DLRSD" / path.parent.name / path.name)
    assert "is not published; 20 % of every scene are drawn (seed 0)" in caplog.text


def test_names_may_differ_in_case(files, make, prepared, load):
    other = {name.replace("/beach/beach", "/Beach/Beach") if "Images" in name else name: files[name] for name in files}
    prepared(card_of("rskt_dlrsd_17"), make.tree("download", other))
    assert "beach01" in load("rskt_dlrsd_17_all")


def test_names_that_differ_in_case_alone_are_refused(files, make, prepared):
    files["DLRSD/Images/Beach/Beach01.tif"] = files["DLRSD/Images/beach/beach01.tif"]
    with pytest.raises(DataError, match=r"Beach01\.tif and .*beach01\.tif differ in case only"):
        prepared(card_of("rskt_dlrsd_17"), make.archive("DLRSD.zip", files))


def test_labels_of_another_size_are_refused(files, make, prepared):
    ids = np.ones((256, 250), np.uint8)
    files["DLRSD/Labels/beach/beach02.png"] = make.encoded(ids, "PNG", PALETTE)
    with pytest.raises(DataError, match=r"beach02\.tif is 256 x 256 .*beach02\.png are 250 x 256"):
        prepared(card_of("rskt_dlrsd_17"), make.tree("download", files))


def test_id_of_no_class_is_refused(files, images, make, prepared):
    ids = images["beach", "beach04"][1].copy()
    ids[200, 100] = 0
    files["DLRSD/Labels/beach/beach04.png"] = make.encoded(ids, "PNG", PALETTE)
    with pytest.raises(DataError, match=r"beach04\.png hold .* 0 \(1 pixels, the first at row 200, column 100\)"):
        prepared(card_of("rskt_dlrsd_17"), make.tree("download", files))


def test_image_without_labels_is_named(files, make, prepared):
    del files["DLRSD/Labels/airplane/airplane00.png"]
    with pytest.raises(DataError, match=r"1 images without labels: .*Images/airplane/airplane00\.tif"):
        prepared(card_of("rskt_dlrsd_17"), make.tree("download", files))
