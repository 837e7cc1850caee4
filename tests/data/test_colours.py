"""Pictures have the colours of the user's own masks."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from detectron2.data import DatasetCatalog, MetadataCatalog
from image_pairs import save_pair
from PIL import Image

from ovrs.data import resolve_datasets
from ovrs.visualization import class_colours, palette

LABELS = np.array([[0, 1, 2, 255], [1, 1, 0, 2]], np.uint8)
OWN = [[10, 0, 0], [200, 180, 20], [0, 120, 40]]
GREYS = [[value] * 3 for value in range(256)]


def stuff_colours(card):
    (name,) = resolve_datasets([str(card)])
    return MetadataCatalog.get(name).stuff_colors


def save_png(path, values, colours):
    image = Image.fromarray(values)
    image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(path)


def save_tiff(path, values, colours):
    with rasterio.open(path, "w", "GTiff", *values.shape[::-1], 1, dtype="uint8") as file:
        file.write_colormap(1, dict(enumerate(map(tuple, colours))))
        file.write(values, 1)


@pytest.fixture
def masks(write_card):
    """Write a card whose masks are palette files with the given colours."""

    def write(colours, save=save_png, suffix=".png", values=LABELS, **changes):
        card = write_card(label_suffix=suffix, **changes)
        save_pair(card.parent, "0", LABELS)
        (card.parent / "labels/0.png").unlink()
        save(card.parent / f"labels/0{suffix}", values, colours)
        return card

    return write


@pytest.mark.parametrize(("save", "suffix"), [(save_png, ".png"), (save_tiff, ".tif")])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_colour_table_of_the_masks_is_used(masks, save, suffix):
    assert stuff_colours(masks(OWN, save, suffix)) == OWN


def test_colours_are_those_of_the_stored_values(masks):
    colours = [[9, 9, 9], *[[0, 0, 0]] * 6, [50, 0, 99], [7, 200, 7], [9, 9, 99]]
    values = np.array([[7, 8, 9], [7, 7, 0]], np.uint8)
    ids = {"ids": {9: "road", 7: "building", 8: "other"}, "ignore": [0]}
    assert stuff_colours(masks(colours, values=values, labels=ids)) == [colours[7], colours[9], colours[8]]


def test_colours_that_the_card_codes_labels_with_are_used(write_card):
    colours = {"building": "#3C1098", "other": [200, 1, 2]}
    card = write_card(labels={"colours": colours})
    own = stuff_colours(card)
    assert [own[0], own[2]] == [[0x3C, 0x10, 0x98], [200, 1, 2]]
    assert own[1] == class_colours(["road"])[0].tolist()  # no mask shows it: the colour that its name suggests


def test_palette_of_the_card_comes_first(masks):
    own = ["#010203", "#0405F6", "#F78909"]
    assert stuff_colours(masks(OWN, palette=own)) == [[1, 2, 3], [4, 5, 0xF6], [0xF7, 0x89, 9]]


@pytest.mark.parametrize("colours", [GREYS, OWN[:2], [OWN[0]] * 3], ids=["greys", "too short", "all alike"])
def test_colour_table_that_shows_no_classes_is_left_alone(masks, colours):
    assert stuff_colours(masks(colours)) == palette(3).tolist()


def test_missing_and_damaged_masks_are_left_to_those_who_read_them(write_card):
    card = write_card()
    assert stuff_colours(card) == palette(3).tolist()
    other = write_card("other.yaml", name="other")
    save_pair(other.parent, "0", LABELS)
    (other.parent / "labels/0.png").write_bytes(b"no picture")
    assert stuff_colours(other) == palette(3).tolist()


def test_registered_set_has_the_colours_of_its_masks_unless_it_names_some(tmp_path):
    save_pair(tmp_path, "0", LABELS)
    save_png(tmp_path / "labels/0.png", LABELS, OWN)
    record = {"file_name": str(tmp_path / "images/0.png"), "sem_seg_file_name": str(tmp_path / "labels/0.png")}
    given = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    for name, colours in (("without", {}), ("with", {"stuff_colors": given})):
        DatasetCatalog.register(name, lambda: [record])
        MetadataCatalog.get(name).set(stuff_classes=["building", "road", "other"], **colours)
    resolve_datasets(["without", "with"])
    assert MetadataCatalog.get("without").stuff_colors == OWN
    assert MetadataCatalog.get("with").stuff_colors == given
