"""Whatever a file looks like to a viewer, the values that it stores are read; all files are written here."""

from __future__ import annotations

import struct
import warnings
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image, TiffImagePlugin

from ovrs.data.card import load_card
from ovrs.data.rasters import read_orientation, turned, turned_back
from ovrs.data.reading import read_image, read_labels, read_size
from ovrs.errors import DataError
from ovrs.structures import IGNORE_LABEL

RGB = np.random.default_rng(0).integers(0, 256, (3, 32, 48), np.uint8)
IDS = np.random.default_rng(1).integers(0, 4, (32, 48), np.uint8)


def save_tiff(path: Path, bands: np.ndarray, **options: object) -> Path:
    bands = bands if bands.ndim == 3 else bands[None]
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", dtype=bands.dtype, **profile, **options) as raster:
            raster.write(bands)
    return path


def save_pages(path: Path, *sizes: int, kinds: tuple[int, ...] = ()) -> Path:
    """Write grey pages of these sides, each filled with its side; ``kinds`` are their subfile types."""
    with TiffImagePlugin.AppendingTiffWriter(str(path), True) as file:
        for size, kind in zip(sizes, kinds or (0,) * len(sizes), strict=True):
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags[254] = kind
            Image.new("L", (size, size), size).save(file, format="TIFF", tiffinfo=tags)
            file.newFrame()
    return path


def save_png(path: Path, values: np.ndarray, bits: int) -> Path:
    """Write a grey PNG of 2 or 4 bits per pixel, which Pillow cannot write."""
    per_byte = 8 // bits
    shifts = np.arange(per_byte)[::-1] * bits
    rows = (values.reshape(len(values), -1, per_byte) << shifts).sum(-1).astype(np.uint8)
    body = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.fixture
def four(write_card):
    """A card of four classes, stored as 0..3."""
    return load_card(write_card(classes=["a", "b", "c", "d"]))


# Labels


LOSSLESS = ["none", "packbits", "lzw", "deflate"]


@pytest.mark.parametrize(("bits", "compress"), [*product((1, 8), LOSSLESS), (1, "ccittfax4")])
@pytest.mark.parametrize("photometric", ["MINISWHITE", "MINISBLACK"])
def test_masks_whose_white_is_0_are_not_inverted(tmp_path, four, bits, photometric, compress):
    path = save_tiff(tmp_path / "a.tif", IDS % 2, photometric=photometric, nbits=bits, compress=compress)
    np.testing.assert_array_equal(read_labels(path, four), IDS % 2)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("tiled", [False, True])
def test_ids_of_few_bits_are_not_spread(tmp_path, four, bits, tiled):
    options = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    np.testing.assert_array_equal(read_labels(save_tiff(tmp_path / "a.tif", IDS, nbits=bits, **options), four), IDS)


@pytest.mark.parametrize("bits", [2, 4])
def test_ids_of_a_png_of_few_bits_are_not_spread(tmp_path, four, bits):
    path = save_png(tmp_path / "a.png", IDS, bits)
    with Image.open(path) as image:
        assert image.mode == "L"
        assert np.asarray(image).max() > 3  # what a viewer shows
    np.testing.assert_array_equal(read_labels(path, four), IDS)
    np.testing.assert_array_equal(read_image(path), np.repeat(IDS[..., None], 3, -1))


@pytest.mark.parametrize("top", [3, 15, 100, 255])
@pytest.mark.parametrize("magic", ["P2", "P5"])
def test_ids_of_a_pgm_are_not_spread_by_its_largest_value(tmp_path, four, magic, top):
    body = IDS.tobytes() if magic == "P5" else " ".join(map(str, IDS.ravel())).encode()
    (tmp_path / "a.pgm").write_bytes(f"{magic}\n48 32\n{top}\n".encode() + body)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.pgm", four), IDS)


def test_bits_of_a_pbm_are_not_inverted(tmp_path, four):
    (tmp_path / "a.pbm").write_bytes(b"P4\n48 32\n" + np.packbits(IDS % 2, axis=1).tobytes())
    np.testing.assert_array_equal(read_labels(tmp_path / "a.pbm", four), IDS % 2)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_ids_of_a_palette_are_its_indices(tmp_path, four, bits):
    ids = IDS % 2 ** min(bits, 2)
    image = Image.fromarray(ids, "P")
    image.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9, 9, 9, 9])
    image.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", four), ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            tmp_path / "a.tif", "w", "GTiff", 48, 32, 1, dtype="uint8", photometric="PALETTE", nbits=bits
        ) as raster:
            raster.write(ids, 1)
            raster.write_colormap(1, {0: (255, 255, 255), 1: (7, 8, 9), 2: (9, 9, 9), 3: (9, 9, 9)})
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif", four), ids)
    assert read_image(tmp_path / "a.tif")[ids == 1][0].tolist() == [7, 8, 9]


def test_grey_with_alpha_gives_the_ids_and_two_unknown_bands_do_not(tmp_path, four):
    both = np.stack([IDS, np.full_like(IDS, 9)])
    np.testing.assert_array_equal(read_labels(save_tiff(tmp_path / "a.tif", both, alpha="YES"), four), IDS)
    with pytest.raises(DataError, match=r"b\.tif have 2 band"):
        read_labels(save_tiff(tmp_path / "b.tif", both), four)


def test_float_labels_are_refused_with_their_type(tmp_path, four):
    with pytest.raises(DataError, match=r"type float32, but .* one integer per pixel"):
        read_labels(save_tiff(tmp_path / "a.tif", IDS.astype(np.float32)), four)


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_labels_in_other_colour_spaces_are_refused_by_name(tmp_path, four, write_card, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    colours = load_card(write_card(labels={"colours": {"building": [0, 0, 0]}}))
    for card in (four, colours):
        with pytest.raises(DataError, match=f"mode {mode}"):
            read_labels(tmp_path / "a.tif", card)


# Images


@pytest.mark.parametrize("alpha", ["UNSPECIFIED", "PREMULTIPLIED", "NON-PREMULTIPLIED"])
@pytest.mark.parametrize("interleave", ["PIXEL", "BAND"])
def test_a_fourth_band_does_not_touch_the_colours(tmp_path, alpha, interleave):
    bands = np.concatenate([RGB, IDS[None] * 60])
    path = save_tiff(tmp_path / "a.tif", bands, photometric="RGB", alpha=alpha, interleave=interleave)
    np.testing.assert_array_equal(read_image(path), RGB.transpose(1, 2, 0))


@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "zstd", "lzma", "packbits", "lerc"])
@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"bigtiff": "YES"},
                                     {"interleave": "BAND"}, {"predictor": 2}], ids=str)  # fmt: skip
def test_every_lossless_coding_gives_the_same_pixels(tmp_path, compress, options):
    if "predictor" in options and compress in ("none", "packbits", "lzma", "lerc"):
        options = {}
    path = save_tiff(tmp_path / "a.tif", RGB, compress=compress, **options)
    np.testing.assert_array_equal(read_image(path), RGB.transpose(1, 2, 0))
    assert read_size(path) == (32, 48)


@pytest.mark.parametrize("options", [{"compress": "webp", "webp_lossless": True}, {"compress": "webp"},
                                     {"compress": "jpeg"}, {"compress": "jpeg", "photometric": "YCBCR"}],
                         ids=str)  # fmt: skip
def test_codings_of_photographs_are_read(tmp_path, options):
    smooth = np.broadcast_to(np.arange(48, dtype=np.uint8) * 5, (3, 32, 48))
    path = save_tiff(tmp_path / "a.tif", smooth, interleave="PIXEL", **options)
    assert np.abs(read_image(path).astype(int) - smooth.transpose(1, 2, 0)).max() <= 8


@pytest.mark.parametrize("suffix", [".jp2", ".tif"])
def test_jpeg_2000_is_read_whatever_its_name(tmp_path, suffix):
    path = tmp_path / "a.jp2"
    save_tiff(tmp_path / "b.tif", RGB)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rasterio.shutil.copy(tmp_path / "b.tif", path, driver="JP2OpenJPEG", reversible="YES", quality="100")
    path = path.rename(tmp_path / f"c{suffix}")
    np.testing.assert_array_equal(read_image(path), RGB.transpose(1, 2, 0))


@pytest.mark.parametrize("name", ["a b.tif", "a!b.tif", "a#1%20.tif", "zip+file.tif", "ü:x.tif", "a.png"])
def test_names_are_not_interpreted(tmp_path, name):
    np.testing.assert_array_equal(
        read_image(save_tiff(tmp_path / "x.tif", RGB).rename(tmp_path / name))[..., 0], RGB[0]
    )


def test_relative_paths_are_read(tmp_path, monkeypatch):
    save_tiff(tmp_path / "GTIFF_DIR:1:a.tif", RGB)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_image("GTIFF_DIR:1:a.tif")[..., 0], RGB[0])


@pytest.mark.parametrize("size", [(64, 8), (8, 64), (8, 64, 32), (64,)])
@pytest.mark.parametrize("first", [0, 1])
def test_full_size_page_is_read_and_said(tmp_path, caplog, size, first):
    path = save_pages(tmp_path / "a.tif", *size, kinds=(first,) + (0,) * (len(size) - 1))
    assert read_image(path).shape == (64, 64, 3)
    assert set(read_image(path).ravel().tolist()) == {64}
    assert read_size(path) == (64, 64)
    said = [record.message for record in caplog.records]
    if len(size) > 1:
        assert len(said) == 1
        assert f"page {size.index(64) + 1} of 64 x 64 pixels" in said[0]
        assert "a.tif" in said[0]
    else:
        assert not said


def test_smaller_copies_and_masks_are_no_pages(tmp_path, caplog):
    path = save_pages(tmp_path / "a.tif", 64, 32, 128, kinds=(0, 1, 4))
    assert read_image(path).shape == (64, 64, 3)
    assert not caplog.records


def test_two_unknown_bands_are_said(tmp_path, caplog):
    both = np.stack([IDS, IDS + 9])
    np.testing.assert_array_equal(read_image(save_tiff(tmp_path / "a.tif", both))[..., 2], IDS)
    assert "a.tif has two bands" in caplog.text
    caplog.clear()
    (tmp_path / "alpha").mkdir()
    np.testing.assert_array_equal(read_image(save_tiff(tmp_path / "alpha/a.tif", both, alpha="YES"))[..., 2], IDS)
    assert not caplog.text


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_black_and_white_are_0_and_255(tmp_path, suffix):
    Image.fromarray(IDS > 1).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}")[..., 1], (IDS > 1) * 255)


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (RGB.astype(np.uint16), "more than 8 bits per channel .3 bands of type uint16.; scale it"),
        (RGB.astype(np.float32), "more than 8 bits per channel .3 bands of type float32.; scale it"),
        (IDS.astype(np.int16), "more than 8 bits per channel .1 bands of type int16.; scale it"),
        (RGB.astype(np.int8), "signed values"),
    ],
)
def test_other_depths_are_refused(tmp_path, bands, message):
    with pytest.raises(DataError, match=rf"a\.tif .*{message}"):
        read_image(save_tiff(tmp_path / "a.tif", bands))


def test_cmyk_is_converted_and_lab_is_refused_by_name(tmp_path):
    for name in ("a.tif", "a.jpg"):
        Image.new("CMYK", (8, 8), (0, 255, 0, 0)).save(tmp_path / name)
        assert np.abs(read_image(tmp_path / name)[0, 0].astype(int) - [255, 0, 255]).max() < 3
    Image.new("LAB", (8, 8)).save(tmp_path / "lab.tif")
    with pytest.raises(DataError, match=r"lab\.tif stores its colours as LAB"):
        read_image(tmp_path / "lab.tif")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5 container"),
        (b"CDF\x01" + bytes(99), "NetCDF"),
        (b"GRIB" + bytes(99), "GRIB"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(99), "zip archive"),
        (b"%PDF-1.7", "PDF"),
    ],
)
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_other_files_are_called_what_they_are(tmp_path, start, message, name):
    (tmp_path / name).write_bytes(start)
    for read in (read_image, read_size):
        with pytest.raises(DataError, match=rf"{name[:1]}\.\w+ is no image but .*{message}") as error:
            read(tmp_path / name)
        assert "damaged" not in str(error.value)


def test_folder_and_locked_file_are_not_called_damaged(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("options", [{}, {"compress": "lzw"}, {"bigtiff": "YES"}, {"tiled": True}], ids=str)
def test_cut_off_tiff_is_damaged(tmp_path, share, options):
    path = save_tiff(tmp_path / "a.tif", np.random.default_rng(0).integers(0, 256, (3, 300, 300), np.uint8), **options)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"a\.tif cannot be read, it is probably damaged"):
        read_image(path)


# Orientation

TURNS = {  # value of the tag: where the corner that is stored first is shown, and what is shown along its row
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.swapaxes(np.rot90(pixels, 2), 0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


@pytest.mark.parametrize("value", TURNS)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_orientation_is_applied_when_asked_for(tmp_path, value, suffix):
    exif = Image.Exif()
    exif[0x0112] = value
    stored = RGB.transpose(1, 2, 0)
    options = {"tiffinfo": {274: value}} if suffix == ".tif" else {"exif": exif}
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", **options)
    plain = read_image(tmp_path / f"a{suffix}")
    assert plain.shape == stored.shape
    shown = read_image(tmp_path / f"a{suffix}", apply_orientation=True)
    np.testing.assert_array_equal(shown, TURNS[value](plain))
    np.testing.assert_array_equal(turned(plain, value), shown)
    np.testing.assert_array_equal(turned_back(shown, value), plain)
    assert read_size(tmp_path / f"a{suffix}") == (32, 48)
    assert read_orientation(tmp_path / f"a{suffix}") == value


def test_labels_may_be_255_where_the_card_says_nothing(tmp_path, four):
    path = save_tiff(tmp_path / "a.tif", np.where(IDS == 3, np.uint8(255), IDS))
    np.testing.assert_array_equal(read_labels(path, four), np.where(IDS == 3, IGNORE_LABEL, IDS))
