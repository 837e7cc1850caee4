"""Which images are found, how they are read, and that crops depend on seed and place alone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from ovrs.data import read_image
from ovrs.errors import ConfigError, DataError
from ovrs.pretraining import load_recipe
from ovrs.pretraining.images import PIXEL_MEAN, PIXEL_STD, Crops, Images, build_loader, find_images, fingerprint


def write_tiff(path, pixels):
    """Write [bands, H, W]."""
    bands, height, width = pixels.shape
    options = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **options) as file:
        file.write(pixels)


def test_folder_is_searched_in_a_fixed_order(drawn, tmp_path):
    assert [path.name for path in find_images(drawn)] == [f"{number}.png" for number in range(8)]
    for name in ("b.TIF", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images(tmp_path)] == ["a.jpg", "b.TIF"]


def test_data_set_gives_its_images(scenes):
    found = find_images(f"{scenes / 'scenes.yaml'}:train")
    assert len(found) == 4
    assert all(path.is_file() for path in found)


def test_nothing_found_is_said(tmp_path):
    with pytest.raises(DataError, match=r"holds no image.*\.png"):
        find_images(tmp_path)
    with pytest.raises(DataError, match="no_such_set"):
        find_images("no_such_set")


def test_fingerprint_knows_names_but_not_places(drawn, tmp_path):
    moved = shutil.copytree(drawn, tmp_path / "moved")
    assert fingerprint(find_images(moved)) == fingerprint(find_images(drawn))
    (moved / "0.png").rename(moved / "00.png")
    assert fingerprint(find_images(moved)) != fingerprint(find_images(drawn))


def test_crops_have_sizes_and_depend_on_the_seed_alone(tiny_recipe):
    crops = Crops(tiny_recipe())
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    large, small = crops(image, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (large.shape, small.shape) == ((2, 3, 32, 32), (2, 3, 16, 16))
    torch.manual_seed(6)
    again, other = crops(image, 1), crops(image, 2)
    assert torch.equal(again[0], large)
    assert torch.equal(again[1], small)
    assert not torch.equal(other[0], large)


def test_pixels_are_normalised_as_dino_does(tiny_recipe):
    large, _ = Crops(tiny_recipe(LOCAL_CROPS=0))(np.zeros((8, 8, 3), np.uint8), 0)
    black = -torch.tensor(PIXEL_MEAN) / torch.tensor(PIXEL_STD)
    torch.testing.assert_close(large[0], black[:, None, None].expand(3, 32, 32))


def test_batches_stand_crop_by_crop_and_go_on_anywhere(drawn, tiny_recipe):
    recipe, files = tiny_recipe(), find_images(drawn)
    batches = iter(build_loader(files, recipe, 0, 0, 1, pin_memory=False))
    first, second = next(batches), next(batches)
    assert sorted(first[2] + second[2]) == sorted(map(str, files))
    resumed = next(iter(build_loader(files, recipe, 1, 0, 1, pin_memory=False)))
    assert torch.equal(resumed[0], second[0])
    assert torch.equal(resumed[1], second[1])
    # two processes share the same places
    halves = [next(iter(build_loader(files, recipe, 0, rank, 2, pin_memory=False))) for rank in (0, 1)]
    assert halves[0][2] + halves[1][2] == [first[2][i] for i in (0, 2, 1, 3)]
    assert torch.equal(halves[0][0][0], first[0][0])  # first large crop of the first image
    assert torch.equal(halves[1][0][2], first[0][5])  # second large crop of the second
    assert torch.equal(halves[1][1][2], first[1][5])


def test_grey_deep_and_many_bands_are_read_by_rule(tmp_path):
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    Image.fromarray(grey).save(tmp_path / "grey.png")
    deep = np.arange(5 * 16, dtype=np.uint16).reshape(5, 4, 4) * 20
    write_tiff(tmp_path / "deep.tif", deep)
    images = Images(find_images(tmp_path), load_recipe("", ["BANDS", "[4, 3, 2]", "VALUE_RANGE", "[0, 1020]"]))
    found, _ = images._read(0)
    expected = np.clip(deep[[3, 2, 1]].transpose(1, 2, 0) * 0.25, 0, 255)
    np.testing.assert_array_equal(found, expected)
    assert np.array_equal(images._read(1)[0], np.repeat(grey[..., None], 3, axis=2))  # 8 bits stay as they are


def test_range_may_differ_between_bands(tmp_path):
    write_tiff(tmp_path / "deep.tif", np.full((3, 2, 2), 500, np.float32))
    found = read_image(tmp_path / "deep.tif", value_range=(0, 1000, 250, 500, 500, 600))
    assert found[0, 0].tolist() == [128, 255, 0]


def test_deep_file_without_a_range_is_named(tmp_path, tiny_recipe):
    write_tiff(tmp_path / "deep.tif", np.zeros((3, 4, 4), np.uint16))
    with pytest.raises(DataError, match=r"deep\.tif has more than 8 bits.*VALUE_RANGE.*BAD_IMAGES skip"):
        Images(find_images(tmp_path), tiny_recipe())[0, 0]


def test_damaged_file_stops_or_is_left_out_as_told(drawn, tmp_path, tiny_recipe, caplog):
    folder = shutil.copytree(drawn, tmp_path / "with a damaged one")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    files = find_images(folder)
    with pytest.raises(DataError, match=r"3\.png cannot be read.*BAD_IMAGES skip"):
        Images(files, tiny_recipe())[0, 3]
    images = Images(files, tiny_recipe(BAD_IMAGES="skip"))
    assert [images[place, 3][2] for place in (0, 1)] == [str(folder / "4.png")] * 2
    assert caplog.text.count("3.png") == 1
    with pytest.raises(DataError, match="none of the 1 images"):
        Images(files[3:4], tiny_recipe(BAD_IMAGES="skip"))[0, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["EPOCS", "3"], "unknown key EPOCS.*EPOCHS"),
        (["EPOCHS", "0"], r"recipe\.EPOCHS must be at least 1"),
        (["GLOBAL_SCALE", "[0.5, 0.1]"], "GLOBAL_SCALE must be"),
        (["BANDS", "[1]"], "BANDS must be three"),
        (["VALUE_RANGE", "[9, 1]"], "VALUE_RANGE must be"),
        (["PRECISION", "fp8"], "PRECISION must be one of fp32, bf16"),
    ],
)
def test_recipe_that_cannot_be_used_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("", words)


def test_recipe_is_gsnets_where_the_paper_speaks(tmp_path):
    recipe = load_recipe()
    assert (recipe.arch, recipe.epochs, recipe.batch_size) == ("vit_base_patch8_224.dino", 300, 8)
    assert (recipe.teacher_temperature, recipe.teacher_temperature_epochs) == (0.07, 30)
    file = tmp_path / "mine.yaml"
    file.write_text("EPOCHS: 50\nLR: 1e-3\n")
    changed = load_recipe(file, ["EPOCHS", "60"])
    assert (changed.epochs, changed.lr, changed.batch_size) == (60, 1e-3, 8)
