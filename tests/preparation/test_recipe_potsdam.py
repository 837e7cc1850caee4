"""Potsdam: three protocols out of the same archives, and the traps of its label tiles."""

import numpy as np
import pytest
from miniatures import card_of

from ovrs.data import DataError
from ovrs.structures import IGNORE_LABEL

# The colours of the benchmark: impervious, building, low vegetation, tree, car, clutter, boundary.
COLOURS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)]
CLUTTER, BOUNDARY = 5, 6
SIDE = 600  # with windows of 512 that is more than one, less than two
TILES = ["2_10", "2_13"]  # one of the contest's training tiles, one of the others


@pytest.fixture
def tiles(make):
    """Return {tile: (image, classes 0..5)}; one window of the second tile has no building."""
    return {tile: (make.image(SIDE, SIDE, seed), make.classes(SIDE, SIDE, 6, seed)) for seed, tile in enumerate(TILES)}


@pytest.fixture
def archives(make, tiles):
    """The archives as they are distributed; returns a function that makes images and one set of labels."""

    def build(label_set="label", painted=None, images="RGB"):
        painted = painted or {tile: make.painted(classes, COLOURS) for tile, (_, classes) in tiles.items()}
        nir = make.image(SIDE, SIDE, 9)[..., :1]
        folder = {"RGB": "2_Ortho_RGB", "RGBIR": "4_Ortho_RGBIR"}[images]
        make.archive(
            f"Potsdam/{folder}.zip",
            {
                f"{folder}/top_potsdam_{tile}_{images}.tif": make.encoded(
                    image if images == "RGB" else np.concatenate([image, nir], -1), "TIFF"
                )
                for tile, (image, _) in tiles.items()
            },
        )
        archive = {"label": "5_Labels_all.zip", "label_noBoundary": "5_Labels_all_noBoundary.zip"}[label_set]
        make.archive(
            f"Potsdam/{archive}",
            {f"top_potsdam_{tile}_{label_set}.tif": make.encoded(pixels, "TIFF") for tile, pixels in painted.items()},
        )
        return make.folder / "Potsdam"

    return build


def expected_labels(classes, ignored):
    return np.where(np.isin(classes, ignored), IGNORE_LABEL, classes)


@pytest.mark.parametrize(
    ("name", "splits", "starts", "size", "ignored"),
    [
        ("hg_potsdam_5", {"train": ["2_10"], "val": ["2_13"]}, [0, 88], 512, [CLUTTER]),
        ("gsnet_potsdam_5", {"all": TILES}, [0, 88], 512, [CLUTTER]),
        ("rskt_potsdam_6", {"all": TILES}, [0, 256], 256, []),
    ],
)
def test_windows_hold_the_pixels_of_the_tile(archives, tiles, prepared, load, name, splits, starts, size, ignored):
    prepared(card_of(name), archives())
    for split, members in splits.items():
        pairs = load(f"{name}_{split}")
        assert len(pairs) == len(members) * len(starts) ** 2
        for tile in members:
            image, classes = tiles[tile]
            for top in starts:
                for left in starts:
                    stem = f"potsdam_{tile}_{top}_{top + size}_{left}_{left + size}"
                    window = slice(top, top + size), slice(left, left + size)
                    np.testing.assert_array_equal(pairs[stem][0], image[window])
                    np.testing.assert_array_equal(pairs[stem][1], expected_labels(classes[window], ignored))


def test_tiles_stored_with_loss_are_read_by_a_threshold(archives, tiles, prepared, load, make):
    rng = np.random.default_rng(0)
    painted = {tile: make.painted(classes, COLOURS).astype(int) for tile, (_, classes) in tiles.items()}
    noise = rng.integers(0, 100, painted["2_10"].shape)
    lossy = np.where(painted["2_10"] > 127, 255 - noise, noise)  # 4_12 in the original
    painted["2_10"] = lossy
    painted["2_13"][tiles["2_13"][1] == 4] = (252, 255, 0)  # 6_7 in the original: most cars
    prepared(
        card_of("gsnet_potsdam_5"), archives(painted={key: array.astype(np.uint8) for key, array in painted.items()})
    )
    pairs = load("gsnet_potsdam_5_all")
    for tile, (_, classes) in tiles.items():
        expected = expected_labels(classes[:512, :512], [CLUTTER])
        np.testing.assert_array_equal(pairs[f"potsdam_{tile}_0_512_0_512"][1], expected)


@pytest.mark.parametrize("name", ["hg_potsdam_5", "gsnet_potsdam_5", "rskt_potsdam_6"])
def test_borders_of_objects_are_ignored(archives, tiles, prepared, load, make, name, caplog):
    for _, classes in tiles.values():
        classes[::40] = BOUNDARY
    prepared(card_of(name), archives("label_noBoundary"))
    split = "val" if name.startswith("hg") else "all"
    size = 256 if name.startswith("rskt") else 512
    labels = load(f"{name}_{split}")[f"potsdam_2_13_0_{size}_0_{size}"][1]
    ignored = [BOUNDARY] if name.startswith("rskt") else [CLUTTER, BOUNDARY]
    np.testing.assert_array_equal(labels, expected_labels(tiles["2_13"][1][:size, :size], ignored))
    # the protocol that wants these labels is content, the others say what they take
    assert ("so these are taken" in caplog.text) is (name != "hg_potsdam_5")


def test_each_protocol_takes_its_own_labels_where_both_are_there(archives, tiles, prepared, load, make):
    archives()
    for _, classes in tiles.values():
        classes[:100] = BOUNDARY
    folder = archives("label_noBoundary")
    prepared(card_of("hg_potsdam_5"), folder)
    prepared(card_of("gsnet_potsdam_5"), folder)
    assert (load("hg_potsdam_5_train")["potsdam_2_10_0_512_0_512"][1][:100] == IGNORE_LABEL).all()
    assert (load("gsnet_potsdam_5_all")["potsdam_2_10_0_512_0_512"][1][:100] != IGNORE_LABEL).any()


def test_images_with_infrared_give_the_same_set(archives, tiles, prepared, load):
    prepared(card_of("gsnet_potsdam_5"), archives(images="RGBIR"))
    image = load("gsnet_potsdam_5_all")["potsdam_2_10_88_600_0_512"][0]
    np.testing.assert_array_equal(image, tiles["2_10"][0][88:600, :512])


def test_colour_of_no_class_is_refused(archives, tiles, prepared, make, out):
    painted = {tile: make.painted(classes, COLOURS) for tile, (_, classes) in tiles.items()}
    painted["2_10"][400, 7] = (255, 0, 255)
    with pytest.raises(DataError, match=r"top_potsdam_2_10_label\.tif hold .*255,0,255 \(1 pixels.*row 400, column 7"):
        prepared(card_of("gsnet_potsdam_5"), archives(painted=painted))


def test_tile_that_no_split_lists_is_refused(archives, tiles, prepared):
    with pytest.raises(DataError, match=r"top_potsdam_2_10_RGB\.tif: 2_10 is in no list of source\.split_ids"):
        prepared(card_of("hg_potsdam_5", split_ids={"train": [], "val": ["2_13"]}), archives())


def test_false_colour_images_are_not_taken(make, prepared):
    make.archive("Potsdam/3_Ortho_IRRG.zip", {"3_Ortho_IRRG/top_potsdam_2_10_IRRG.tif": b""})
    make.archive("Potsdam/5_Labels_all.zip", {"top_potsdam_2_10_label.tif": b""})
    with pytest.raises(DataError, match=r"holds no file like 'top_potsdam_2_10_RGB\.tif'"):
        prepared(card_of("hg_potsdam_5"), make.folder)


def test_images_without_any_labels_are_refused(archives, prepared):
    folder = archives()
    (folder / "5_Labels_all.zip").unlink()
    with pytest.raises(DataError, match=r"holds no file like 'top_potsdam_2_10_label\.tif'"):
        prepared(card_of("gsnet_potsdam_5"), folder)
