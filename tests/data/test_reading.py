import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image

from ovrs.data.card import load_card
from ovrs.data.reading import read_image, read_labels, read_pair, read_size
from ovrs.errors import DataError
from ovrs.structures import IGNORE_LABEL

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def save_bands(path: Path, bands: np.ndarray) -> Path:
    profile = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    profile["transform"] = rasterio.Affine(2, 0, 0, 0, -2, 0)
    with rasterio.open(path, "w", driver="GTiff", **profile) as raster:
        raster.write(bands)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_rgb_is_read_as_it_is(tmp_path, suffix):
    image = read_image(save(tmp_path / f"a b{suffix}", RGB))
    assert image.dtype == np.uint8
    assert image.flags.writeable
    np.testing.assert_array_equal(image, RGB)


def test_grey_is_repeated(tmp_path):
    image = read_image(save(tmp_path / "a.png", RGB[..., 0]))
    np.testing.assert_array_equal(image, np.repeat(RGB[..., :1], 3, axis=-1))


def test_alpha_is_dropped_not_blended(tmp_path):
    image = read_image(save(tmp_path / "a.png", np.dstack([RGB, np.full((4, 5), 10, np.uint8)])))
    np.testing.assert_array_equal(image, RGB)


def test_palette_image_gives_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([1, 2, 3, 200, 100, 50])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[1, 2, 3], [200, 100, 50]]]


def test_sixteen_bits_are_refused(tmp_path):
    path = save(tmp_path / "a.png", np.full((4, 5), 1000, np.uint16))
    with pytest.raises(DataError, match=r"a\.png has more than 8 bits per channel .* scale it"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_is_refused_although_pil_would_cut_it(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), np.full((4, 5, 3), 1000, np.uint16))
    with Image.open(path) as image:
        assert image.mode == "RGB"
    with pytest.raises(DataError, match=rf"a\{suffix} has more than 8 bits per channel"):
        read_image(path)


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    assert read_size(tmp_path / "a.png") == (4, 5)


@pytest.mark.parametrize("count", [4, 5, 7])
def test_first_three_of_many_bands_are_read(tmp_path, count):
    bands = np.arange(count * 20, dtype=np.uint8).reshape(count, 4, 5)
    path = save_bands(tmp_path / "a.tif", bands)
    np.testing.assert_array_equal(read_image(path), bands[:3].transpose(1, 2, 0))
    assert read_size(path) == (4, 5)


def test_many_deep_bands_are_refused(tmp_path):
    path = save_bands(tmp_path / "a.tif", np.zeros((5, 4, 5), np.uint16))
    with pytest.raises(DataError, match="5 bands of type uint16"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_truncated_image_names_the_file(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = save(tmp_path / f"cut{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cut\{suffix}"):
        read_image(path)


def test_truncated_band_file_names_the_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64)).astype(np.uint8)
    path = save_bands(tmp_path / "cut.tif", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.tif"):
        read_image(path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png is no image file"):
        read_image(tmp_path / "text.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png is no image file"):
        read_size(tmp_path / "empty.png")


def test_large_tiles_are_read_without_a_warning_but_bombs_are_refused(tmp_path, monkeypatch, recwarn):
    path = save(tmp_path / "a.png", RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB.shape[0] * RGB.shape[1] - 1)
    np.testing.assert_array_equal(read_image(path), RGB)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(DataError, match=r"a\.png is too large .* tiles"):
        read_image(path)


@pytest.fixture
def id_card(write_card):
    return load_card(write_card(labels={"offset": -1, "valid": [1, 3], "ignore": [0]}))


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "I"])
def test_ids_become_class_indices_in_every_integer_mode(tmp_path, id_card, mode):
    stored = np.array([[1, 2, 3], [0, 255, 1]])
    dtype = {"L": np.uint8, "P": np.uint8, "I;16": np.uint16, "I": np.int32}[mode]
    image = Image.fromarray(stored.astype(dtype))
    if mode == "P":
        image.putpalette([200, 200, 200] * 256)  # the same luminance everywhere: only indices tell classes apart
    assert image.mode == mode
    image.save(tmp_path / "a.tif")
    labels = read_labels(tmp_path / "a.tif", id_card)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1, 2], [IGNORE_LABEL, IGNORE_LABEL, 0]]


def test_one_bit_labels_are_two_classes(tmp_path, write_card):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png", load_card(write_card(classes=["a", "b"]))).tolist() == [[1, 0]]


def test_255_can_be_a_class(tmp_path, write_card):
    card = load_card(write_card(labels={"ids": {0: "other", 255: "building"}}))
    assert read_labels(save(tmp_path / "a.png", np.array([[0, 255]], np.uint8)), card).tolist() == [[2, 0]]


def test_stored_values_above_eight_bits_are_decoded(tmp_path, write_card):
    card = load_card(write_card(labels={"ids": {7001: "building", 300: "road"}}))
    path = save(tmp_path / "a.png", np.array([[7001, 300, 255]], np.uint16))
    assert read_labels(path, card).tolist() == [[0, 1, IGNORE_LABEL]]


def test_unlisted_values_are_named_and_counted(tmp_path, id_card):
    path = save(tmp_path / "a.png", np.array([[1, 9, 9], [254, 2, 0]], np.uint8))
    with pytest.raises(DataError, match=r"a\.png .* 9 \(2 pixels\), 254 \(1 pixels\)\. Listed are 1, 2, 3, 0"):
        read_labels(path, id_card)
    path = save(tmp_path / "b.tif", np.array([[1, -4, 70000]], np.int32))
    with pytest.raises(DataError, match=r"-4 \(1 pixels\), 70000 \(1 pixels\)"):
        read_labels(path, id_card)


def test_colour_labels_for_an_id_card_are_refused(tmp_path, id_card):
    with pytest.raises(DataError, match=r"mode RGB, but .*town\.yaml describes one integer per pixel"):
        read_labels(save(tmp_path / "a.png", RGB), id_card)


def test_truncated_label_names_the_file(tmp_path, id_card):
    path = save(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 4, (64, 64)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cut\.png cannot be read"):
        read_labels(path, id_card)


COLOURS = {"building": [60, 16, 152], "road": "#6EC1E4", "other": [0, 0, 1]}


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_become_class_indices(tmp_path, write_card, mode):
    card = load_card(write_card(labels={"colours": COLOURS, "ignore_colours": ["#9B9B9B"]}))
    pixels = np.array([[[60, 16, 152], [110, 193, 228]], [[0, 0, 1], [155, 155, 155]]], np.uint8)
    Image.fromarray(pixels).convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    assert read_labels(tmp_path / "a.png", card).tolist() == [[0, 1], [2, IGNORE_LABEL]]


def test_every_colour_is_told_from_its_neighbours(tmp_path, write_card):
    card = load_card(write_card(labels={"colours": COLOURS}))
    for channel in range(3):
        pixel = np.array([[[60, 16, 152]]], np.uint8)
        pixel[..., channel] += 1
        with pytest.raises(DataError, match=r"a\.png .* #[0-9A-F]{6} \(1 pixels\)\. Listed are #3C1098, #6EC1E4"):
            read_labels(save(tmp_path / "a.png", pixel), card)


def test_threshold_cleans_impure_colours(tmp_path, write_card):
    colours = {"building": [0, 0, 255], "road": [255, 255, 255], "other": [0, 0, 0]}
    card = load_card(write_card(labels={"colours": colours, "threshold": 128}))
    pixels = np.array([[[127, 3, 128], [250, 130, 200], [127, 127, 0]]], np.uint8)
    assert read_labels(save(tmp_path / "a.png", pixels), card).tolist() == [[0, 1, 2]]


def test_grey_labels_for_a_colour_card_are_refused(tmp_path, write_card):
    card = load_card(write_card(labels={"colours": COLOURS}))
    with pytest.raises(DataError, match=r"mode L, but .* describes RGB colours"):
        read_labels(save(tmp_path / "a.png", RGB[..., 0]), card)


def test_size_mismatch_names_both_files_and_sizes(tmp_path, id_card):
    image, labels = save(tmp_path / "i.png", RGB), save(tmp_path / "l.png", np.ones((5, 5), np.uint8))
    with pytest.raises(DataError, match=r"i\.png is 5 x 4 .*l\.png are 5 x 5"):
        read_pair(image, labels, id_card)


def test_mask_of_0_and_255_among_masks_of_0_and_1_is_refused(tmp_path, write_card):
    card = load_card(write_card(classes=["other", "building"]))
    assert read_labels(save(tmp_path / "a.png", np.array([[0, 1]], np.uint8)), card).tolist() == [[0, 1]]
    with pytest.raises(DataError, match=r"b\.png hold nothing but 0 and 255, .*town\.yaml lists 1 .*ignore: \[255\]"):
        read_labels(save(tmp_path / "b.png", np.array([[0, 255]], np.uint8)), card)
    # nothing but 255, or nothing but 0, says nothing about what 255 means
    for value in (0, 255):
        assert read_labels(save(tmp_path / "c.png", np.full((2, 2), value, np.uint8)), card).max() == value


@pytest.mark.parametrize("labels", [{"ignore": [255]}, {"ids": {0: "other", 1: "building", 255: "building"}}])
def test_mask_of_0_and_255_is_read_where_the_card_lists_255(tmp_path, write_card, labels, caplog):
    card = load_card(write_card(classes=["other", "building"], labels=labels))
    expected = 1 if "ids" in labels else IGNORE_LABEL
    assert read_labels(save(tmp_path / "b.png", np.array([[0, 255]], np.uint8)), card).tolist() == [[0, expected]]
    assert not caplog.records


def test_undeclared_255_beside_listed_values_is_said_once(tmp_path, write_card, caplog):
    card = load_card(write_card())
    for name in ("a", "b"):
        labels = read_labels(save(tmp_path / f"{name}.png", np.array([[0, 1, 255]], np.uint8)), card)
        assert labels.tolist() == [[0, 1, IGNORE_LABEL]]
    (record,) = caplog.records
    assert "town.yaml does not list the value 255" in record.getMessage()
    assert "a.png" in record.getMessage()


# PNG files, which libpng decodes where it can


@pytest.mark.parametrize(("mode", "is_direct"), [("RGB", True), ("RGBA", True), ("L", False), ("P", False)])
def test_png_gives_the_pixels_of_pillow_without_it(tmp_path, monkeypatch, mode, is_direct):
    noise = np.random.default_rng(0).integers(0, 256, (61, 47, 4), np.uint8)
    picture = Image.fromarray(noise if mode == "RGBA" else noise[..., :3]).convert(mode)
    picture.save(tmp_path / "a.png")
    expected = np.array(picture.convert("RGB"))
    if is_direct:
        monkeypatch.setattr(Image.Image, "convert", None)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_png_of_one_transparent_colour_keeps_its_colours(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", transparency=tuple(RGB[0, 0]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999, 1.0])
@pytest.mark.filterwarnings("ignore:Truncated")
def test_png_with_a_wrong_byte_or_rows_missing_is_no_picture(tmp_path, id_card, bands, share):
    noise = np.random.default_rng(0).integers(0, 3, (300, 200, bands), np.uint8)
    whole = save(tmp_path / "a.png", noise.squeeze()).read_bytes()
    start, end = whole.index(b"IDAT") + 4, len(whole) - 16  # of the compressed rows, their check included
    rows = zlib.decompress(whole[start:end])
    wrong = bytearray(whole)
    wrong[min(start + int(share * (end - start)), end - 1)] ^= 1
    fewer = zlib.compress(rows[: int(share * (len(rows) - 1))])
    header = struct.pack(">I", len(fewer)) + b"IDAT" + fewer + struct.pack(">I", zlib.crc32(b"IDAT" + fewer))
    for content in (bytes(wrong), whole[: start - 8] + header + whole[-12:]):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(DataError, match=r"b\.png cannot be read"):
            read_image(tmp_path / "b.png") if bands == 3 else read_labels(tmp_path / "b.png", id_card)
