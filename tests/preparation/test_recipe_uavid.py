"""UAVid: colours and not the tool kit's ids, frames named by their sequence."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError

SHAPE = (54, 96)
# Colours of the authors in the protocol's order: clutter, building, road, tree, low vegetation, moving car, static car,
# human. The tool kit's order is another one.
COLOURS = [
    *[(0, 0, 0), (128, 0, 0), (128, 64, 128), (0, 128, 0)],
    *[(128, 128, 0), (64, 0, 128), (192, 0, 192), (64, 64, 0)],
]
TOOL_KIT_IDS = [0, 1, 2, 4, 5, 7, 3, 6]
FRAMES = {("train", "seq1"): ["000000", "000100"], ("val", "seq16"): ["000000"]}


@pytest.fixture
def frames(make):
    """Return {stem: (image, classes 0..7)}."""
    stems = [f"{sequence}_{frame}" for (_, sequence), names in FRAMES.items() for frame in names]
    return {stem: (make.image(*SHAPE, seed), make.classes(*SHAPE, 8, seed, block=9)) for seed, stem in enumerate(stems)}


@pytest.fixture
def files(make, frames):
    """The files of the download: with the tool kit's ids beside the colours, and test frames without labels."""
    found = {"uavid_test/seq21/Images/000000.png": make.encoded(make.image(*SHAPE, 9), "PNG")}
    for (split, sequence), names in FRAMES.items():
        for frame in names:
            image, classes = frames[f"{sequence}_{frame}"]
            folder = f"uavid_{split}/{sequence}"
            found[f"{folder}/Images/{frame}.png"] = make.encoded(image, "PNG")
            found[f"{folder}/Labels/{frame}.png"] = make.encoded(make.painted(classes, COLOURS), "PNG")
            found[f"{folder}/TrainId/{frame}.png"] = make.encoded(np.array(TOOL_KIT_IDS, np.uint8)[classes], "PNG")
    return found


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_classes_come_in_the_order_of_the_protocol(files, frames, make, prepared, load, kind):
    name = "uavid_v1.5_official_release"
    if kind == "archive":
        source = make.archive(f"{name}.zip", {f"{name}/{file}": content for file, content in files.items()})
    else:
        source = make.tree(name, files)
    prepared(card_of("rskt_uavid_8"), source)
    pairs = load("rskt_uavid_8_all")
    # frames of one number in two sequences stay two; the test frames have no labels
    assert sorted(pairs) == ["seq16_000000", "seq1_000000", "seq1_000100"]
    for stem, (image, classes) in frames.items():
        np.testing.assert_array_equal(pairs[stem][0], image)
        np.testing.assert_array_equal(pairs[stem][1], classes)


def test_ids_of_the_tool_kit_are_refused(files, make, prepared):
    files["uavid_val/seq16/Labels/000000.png"] = files["uavid_val/seq16/TrainId/000000.png"]
    with pytest.raises(DataError, match=r"seq16/Labels/000000\.png have the mode L, but RGB colours were expected"):
        prepared(card_of("rskt_uavid_8"), make.tree("uavid", files))


def test_unknown_colour_is_refused_and_does_not_become_clutter(files, frames, make, prepared):
    painted = make.painted(frames["seq1_000100"][1], COLOURS)
    painted[50, 11] = (128, 64, 0)
    files["uavid_train/seq1/Labels/000100.png"] = make.encoded(painted, "PNG")
    message = r"seq1/Labels/000100\.png hold .*128,64,0 \(1 pixels, the first at row 50, column 11\)"
    with pytest.raises(DataError, match=message):
        prepared(card_of("rskt_uavid_8"), make.tree("uavid", files))


def test_frame_without_labels_is_named(files, make, prepared):
    del files["uavid_train/seq1/Labels/000000.png"]
    with pytest.raises(DataError, match=r"1 images without labels: .*uavid_train/seq1/Images/000000\.png"):
        prepared(card_of("rskt_uavid_8"), make.tree("uavid", files))


def test_one_folder_of_the_download_is_prepared_alone(files, make, prepared, load):
    folder = make.tree("uavid", files) / "uavid_val"
    prepared(card_of("rskt_uavid_8"), folder)
    assert list(load("rskt_uavid_8_all")) == ["seq16_000000"]
