"""Small pieces of a map become part of their neighbours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import rasterio
from affine import Affine
from models import draw_truth, write_raster

from ovrs.raster import areas
from ovrs.raster.ground import Ground
from ovrs.raster.sieve import number_pieces, sieved_bands

NODATA = 255


@pytest.fixture
def sieve(tmp_path):
    """Sieve labels by a number of pixels."""

    def run(labels, min_pixels):
        path = write_raster(tmp_path / "labels.tif", labels[None], nodata=NODATA, crs=None)
        ground = Ground(Affine.identity(), None, *labels.shape)
        with rasterio.open(path) as classes:
            bands = list(sieved_bands(classes, ground, min_pixels))
        assert [(top, bottom) for top, bottom, _ in bands] == areas.band_rows(*labels.shape)
        return np.concatenate([band for *_, band in bands])

    return run


def naive(labels, min_pixels):
    """The same, pixel by pixel, over the whole map."""
    numbers, kinds = number_pieces(labels, NODATA)
    small = {n for n in range(len(kinds)) if (numbers == n).sum() < min_pixels}
    settled = dict(enumerate(kinds.tolist()))
    while True:
        votes = {}
        for y, x in np.argwhere(np.isin(numbers, list(small))):
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                if 0 <= y + dy < labels.shape[0] and 0 <= x + dx < labels.shape[1]:
                    piece, other = int(numbers[y, x]), int(numbers[y + dy, x + dx])
                    if other >= 0 and other not in small:
                        count = votes.setdefault(piece, {})
                        count[settled[other]] = count.get(settled[other], 0) + 1
        if not votes:
            break
        for piece, count in votes.items():
            settled[piece] = min(count, key=lambda label: (-count[label], label))
            small.discard(piece)
    return np.array([[settled[n] if n >= 0 else NODATA for n in row] for row in numbers.tolist()], np.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("min_pixels", [1, 2, 12, 60])
def test_small_pieces_join_the_neighbour_with_the_longest_border(sieve, seed, min_pixels):
    rng = np.random.default_rng(seed)
    labels = cv2.medianBlur(rng.integers(0, 5, (60, 50), dtype=np.uint8), 3)
    labels[rng.random(labels.shape) < 0.03] = NODATA
    np.testing.assert_array_equal(sieve(labels, min_pixels), naive(labels, min_pixels))


def test_longest_border_decides_and_not_the_larger_neighbour(sieve):
    labels = np.zeros((9, 12), np.uint8)
    labels[3:6, 3:6] = 1  # a ring of label 1, of which one side is open to label 0
    labels[4, 4:6] = 2
    assert (sieve(labels, 3)[4, 4:6] == 1).all()


@pytest.fixture
def low_bands(monkeypatch):
    monkeypatch.setattr(areas, "BAND_PIXELS", 1)  # of 64 rows


@pytest.mark.usefixtures("low_bands")
@pytest.mark.parametrize("offset", range(0, 64, 9))
def test_bands_change_nothing_for_pieces_that_stand_alone(sieve, monkeypatch, offset):
    labels = draw_truth(330, 80, patch=40)
    for number in range(10):  # across all seams of bands, at all heights
        top = 26 * number + offset
        labels[top : top + 20, 5 + 4 * number : 7 + 4 * number] = 4
    banded = sieve(labels, 45)
    monkeypatch.setattr(areas, "BAND_PIXELS", 1 << 22)
    np.testing.assert_array_equal(banded, sieve(labels, 45))
    assert (banded != labels).any()


@pytest.mark.usefixtures("low_bands")
def test_no_small_piece_is_left_in_bands_of_noise_and_large_ones_keep_their_pixels(sieve):
    rng = np.random.default_rng(0)
    labels = draw_truth(300, 70, patch=35)
    noise = rng.random(labels.shape) < 0.4
    labels[noise] = rng.integers(0, 5, int(noise.sum()))
    found = sieve(labels, 30)
    numbers, _ = number_pieces(found, NODATA)
    assert np.bincount(numbers.ravel()).min() >= 30
    numbers, _ = number_pieces(labels, NODATA)
    large = np.bincount(numbers.ravel())[numbers] >= 30
    np.testing.assert_array_equal(found[large], labels[large])


@pytest.mark.usefixtures("low_bands")
def test_island_and_piece_that_is_taller_than_a_band_are_left_alone(sieve):
    labels = np.zeros((300, 40), np.uint8)
    labels[2:290, 5] = 1
    labels[100:110, 20:30] = NODATA
    labels[104, 24] = 2
    np.testing.assert_array_equal(sieve(labels, 1000), labels)
