"""Images and label rasters out of every kind of source, and files that are not what they should be."""

import warnings

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image

from ovrs.data import DataError
from ovrs.data.rasters import open_image, open_labels, read_size
from ovrs.preparation import Source, sources

GREY = [(level, level, level) for level in range(256)]


def bands(count: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(count).integers(0, 255, (count, 40, 30)).astype(dtype)


def tiff(pixels: np.ndarray) -> bytes:
    """Return the bytes of a TIFF file of bands [C, H, W], in strips of 8 rows."""
    with rasterio.MemoryFile() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        count, height, width = pixels.shape
        profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
        with memory.open(**profile, blockysize=8) as dataset:
            dataset.write(pixels)
        return memory.read()


@pytest.fixture
def member(make, out):
    """Return the only member of a source of one file; an ending like ".zip" packs it."""
    opened = []

    def pack(content: bytes, name: str = "a+b.tif", ending: str = ""):
        files = {f"some folder/{name}": content}
        path = make.archive(f"one{ending}", files) if ending else make.tree("one", files)
        opened.append(Source([path], out))
        return opened[-1].__enter__().members[0]

    yield pack
    for source in opened:
        source.__exit__()


def image_of(member, selected=(1, 2, 3)):
    with open_image(member, selected) as image:
        return image.rows(0, image.height)


def labels_of(member, colours=False):
    with open_labels(member, colours=colours) as labels:
        return labels.rows(0, labels.height)


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("ending", ["", ".zip", ".tar", ".tar.gz"])
def test_tiff_is_read_in_rows_wherever_it_lies(member, ending, limit, monkeypatch):
    monkeypatch.setattr(sources, "_IN_MEMORY", limit)  # 0: through GDAL's own view into archives
    pixels = bands(3)
    found = member(tiff(pixels), ending=ending)
    assert read_size(found) == (40, 30)
    with open_image(found) as image:
        for top, bottom in ((0, 16), (10, 40)):
            np.testing.assert_array_equal(image.rows(top, bottom), pixels.transpose(1, 2, 0)[top:bottom])


@pytest.mark.parametrize(
    ("count", "selected", "expected"), [(4, (1, 2, 3), [0, 1, 2]), (5, (3, 2, 1), [2, 1, 0]), (1, (1, 2, 3), [0, 0, 0])]
)
def test_bands_of_a_tiff_are_selected(member, count, selected, expected):
    pixels = bands(count)
    np.testing.assert_array_equal(image_of(member(tiff(pixels)), selected), pixels[expected].transpose(1, 2, 0))


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("L", "JPEG")])
def test_pictures_of_all_modes_become_rgb(member, make, mode, kind):
    picture = Image.fromarray(bands(3).transpose(1, 2, 0)).convert(mode)
    content = make.encoded(np.asarray(picture), kind, GREY[::-1] if mode == "P" else ())
    found = image_of(member(content, f"a.{kind.lower()}"))
    if kind == "JPEG":
        assert np.ptp(found, axis=2).max() == 0
    elif mode == "P":
        np.testing.assert_array_equal(found[..., 0], 255 - np.asarray(picture))
    else:
        np.testing.assert_array_equal(found, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["P", "L", "LA", "1"])
def test_ids_are_the_stored_integers_not_what_a_palette_paints(member, make, mode):
    ids = make.classes(20, 30, 2 if mode == "1" else 8)
    pixels = {"LA": np.stack([ids, ids * 0 + 9], -1), "1": ids.astype(bool)}.get(mode, ids)
    content = make.encoded(pixels, "PNG", GREY[::-1] if mode == "P" else ())
    np.testing.assert_array_equal(labels_of(member(content, "a.png")), ids)


def test_ids_of_a_tiff_may_be_wider_than_a_byte(member, make):
    ids = bands(1, "int16") * 100
    np.testing.assert_array_equal(labels_of(member(tiff(ids))), ids[0])


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colours_lose_their_alpha(member, make, ending):
    pixels = bands(4)
    content = tiff(pixels) if ending == "tif" else make.encoded(pixels.transpose(1, 2, 0), "PNG")
    np.testing.assert_array_equal(labels_of(member(content, f"a.{ending}"), True), pixels[:3].transpose(1, 2, 0))


def test_picture_is_plain_only_as_rgb(member, make):
    for pixels, plain in ((make.image(4, 4), True), (make.image(4, 4)[..., 0], False)):
        with open_image(member(make.encoded(pixels, "PNG"), "a.png")) as image:
            assert image.is_plain is plain


@pytest.mark.parametrize("ending", ["", ".zip", ".tar"])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_truncated_file_is_named(member, make, name, ending):
    pixels = make.image(60, 60)
    content = {"a.png": make.encoded(pixels, "PNG"), "a.jpg": make.encoded(pixels, "JPEG"), "a.tif": None}[name]
    content = content or tiff(pixels.transpose(2, 0, 1))
    with pytest.raises(DataError, match=rf"{name.replace('.', '[.]')} (cannot be read|is no image)"):
        image_of(member(content[: len(content) // 2], name, ending))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_file_that_is_no_image_is_named(member, name):
    with pytest.raises(DataError, match=name):
        image_of(member(b"<html>please log in</html>", name))


@pytest.mark.parametrize(("pixels", "found"), [(bands(3, "uint16"), "3 bands of type uint16"), (bands(4)[:3], None)])
def test_deep_tiff_images_are_refused(member, pixels, found):
    if found is None:
        assert image_of(member(tiff(pixels))).dtype == np.uint8
        return
    with pytest.raises(DataError, match=rf"a\+b\.tif has more than 8 bits per channel \({found}\)"):
        image_of(member(tiff(pixels)))


def test_missing_band_is_refused(member):
    with pytest.raises(DataError, match=r"a\+b\.tif has 3 bands .*the bands 2, 3, 4"):
        image_of(member(tiff(bands(3))), (2, 3, 4))


def test_deep_colour_is_refused_although_pillow_would_cut_it_down(member):
    _, content = cv2.imencode(".png", np.full((4, 4, 3), 40000, np.uint16))
    with pytest.raises(DataError, match=r"a\.png has more than 8 bits per channel \(mode RGB\)"):
        image_of(member(content.tobytes(), "a.png"))


def test_deep_pictures_are_refused(member, make):
    content = make.encoded(np.full((4, 4), 40000, np.uint16), "PNG")
    with pytest.raises(DataError, match=r"a\.png has more than 8 bits per channel \(mode I;16\)"):
        image_of(member(content, "a.png"))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_labels_of_the_other_kind_are_refused(member, make, ending):
    grey, colour = bands(1), bands(3)
    contents = {
        "tif": (tiff(grey), tiff(colour)),
        "png": (make.encoded(grey[0], "PNG"), make.encoded(colour.transpose(1, 2, 0), "PNG")),
    }[ending]
    with pytest.raises(DataError, match=rf"a\.{ending} have .* but RGB colours were expected"):
        labels_of(member(contents[0], f"a.{ending}"), colours=True)
    with pytest.raises(DataError, match=rf"a\.{ending} have .* but one integer per pixel"):
        labels_of(member(contents[1], f"a.{ending}"), colours=False)


def test_error_elsewhere_is_not_taken_for_a_damaged_image(member, make):
    for name in ("a.png", "a.tif"):
        found = member(tiff(bands(3)) if name == "a.tif" else make.encoded(make.image(4, 4), "PNG"), name)
        with pytest.raises(ValueError, match=r"^mine$"), open_image(found):
            raise ValueError("mine")
