"""Sliding windows against an explicit loop, with a classifier that is cheap and sees its whole window."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from ovrs.inference import SlidingWindow

CLASSES = 3


def run(slide: SlidingWindow, images: list[torch.Tensor], classify: Callable) -> list[torch.Tensor]:
    """Scores of images: cut, classified window by window, put together."""
    sizes = [tuple(image.shape[-2:]) for image in images]
    maps = slide.merge(sizes, sizes, ((keys, classify(windows)) for keys, windows in slide.views(images)))
    assert [found.full for found in maps] == [found.size for found in maps] == sizes
    return [found.scores for found in maps]


class Classifier:
    """Scores in 0..1 that depend on a window's pixels and on their place in it; records its batch sizes."""

    def __init__(self, kernel: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(CLASSES, 3, 5, 5, generator=generator) / 5
        self.place = torch.randn(CLASSES, kernel, kernel, generator=generator)
        self.batches: list[int] = []

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(windows))
        assert windows.shape[1:] == (3, *self.place.shape[-2:])
        return (F.conv2d(windows, self.weight, padding=2) + self.place).sigmoid()


def squash(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("size", [(640, 640), (500, 700)])
def test_published_protocol_is_four_windows_and_one_global_view(size: tuple[int, int]):
    image, classify = torch.randn(3, *size), Classifier(384)
    actual = run(SlidingWindow(), [image], classify)[0]
    assert classify.batches == [5]

    canvas = squash(image, 640, 640)
    total, count = torch.zeros(CLASSES, 640, 640), torch.zeros(640, 640)
    for top, left in ((0, 0), (0, 256), (256, 0), (256, 256)):
        total[:, top : top + 384, left : left + 384] += classify(canvas[None, :, top : top + 384, left : left + 384])[0]
        count[top : top + 384, left : left + 384] += 1
    assert sorted(count.unique().tolist()) == [1, 2, 4]
    view = squash(classify(squash(image, 384, 384)[None])[0], 640, 640)
    torch.testing.assert_close(actual, (total / count + view) / 2, rtol=1e-5, atol=1e-5)
    assert 0 < actual.min() < actual.max() < 1


def test_without_global_view_only_windows_count():
    image, classify = torch.randn(3, 40, 40), Classifier(24)
    with_view = run(SlidingWindow(40, 24, 0.333, True), [image], classify)[0]
    without = run(SlidingWindow(40, 24, 0.333, False), [image], classify)[0]
    view = squash(classify(squash(image, 24, 24)[None])[0], 40, 40)
    torch.testing.assert_close(with_view, (without + view) / 2, rtol=1e-5, atol=1e-5)


SIZES = [(20, 20), (20, 50), (50, 20), (24, 24), (48, 25), (41, 67), (100, 33)]


@pytest.mark.parametrize("global_view", [False, True])
@pytest.mark.parametrize("overlap", [0.0, 0.333, 0.9])
@pytest.mark.parametrize("canvas", [0, 24, 50])
def test_weights_sum_to_one_at_every_pixel(canvas: int, overlap: float, global_view: bool):
    slide = SlidingWindow(canvas, 24, overlap, global_view)
    constant = torch.tensor([0.25, 0.5, 1.0])
    results = run(
        slide,
        [torch.randn(3, *size) for size in SIZES],
        lambda windows: constant[None, :, None, None].expand(len(windows), -1, 24, 24).clone(),
    )
    for result, size in zip(results, SIZES, strict=True):
        assert result.shape == (3, *((canvas, canvas) if canvas else size))
        torch.testing.assert_close(result, constant[:, None, None].expand_as(result))


@pytest.mark.parametrize("canvas", [0, 50])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_many_images_in_any_batch_size_equal_one_by_one(canvas: int, batch_size: int):
    images = [torch.randn(3, *size) for size in SIZES]
    classify = Classifier(24)
    slide = SlidingWindow(canvas, 24, 0.5, True, batch_size)
    together = run(slide, images, classify)
    assert max(classify.batches) == min(batch_size, sum(classify.batches))
    assert all(size == batch_size for size in classify.batches[:-1])
    for image, result in zip(images, together, strict=True):
        single = run(SlidingWindow(canvas, 24, 0.5, True, 3), [image], classify)[0]
        torch.testing.assert_close(result, single, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(41, 67), (100, 33), (48, 25)])
def test_native_tiling_equals_an_explicit_loop(size: tuple[int, int]):
    image, classify = torch.randn(3, *size), Classifier(24)
    actual = run(SlidingWindow(0, 24, 0.5, False), [image], classify)[0]
    total, count = torch.zeros(CLASSES, *size), torch.zeros(size)
    corners = [[*range(0, side - 24, 12), side - 24] for side in size]
    for top in corners[0]:
        for left in corners[1]:
            total[:, top : top + 24, left : left + 24] += classify(image[None, :, top : top + 24, left : left + 24])[0]
            count[top : top + 24, left : left + 24] += 1
    torch.testing.assert_close(actual, total / count, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(20, 20), (20, 50), (10, 24)])
def test_global_view_of_an_image_smaller_than_a_window_covers_the_image_alone(size: tuple[int, int]):
    image, classify = torch.randn(3, *size), Classifier(24)
    windows_only = run(SlidingWindow(0, 24, 0.333, False), [image], classify)[0]
    actual = run(SlidingWindow(0, 24, 0.333, True), [image], classify)[0]
    view = squash(classify(squash(image, 24, 24)[None])[0], *size)
    assert actual.shape == (CLASSES, *size)
    torch.testing.assert_close(actual, (windows_only + view) / 2, rtol=1e-5, atol=1e-6)


def test_image_smaller_than_a_window_is_padded_to_one_window():
    image, classify = torch.randn(3, 20, 10), Classifier(24)
    actual = run(SlidingWindow(0, 24, 0.333, False), [image], classify)[0]
    expected = classify(F.pad(image, (0, 14, 0, 4))[None])[0]
    assert classify.batches == [1, 1]
    torch.testing.assert_close(actual, expected[:, :20, :10])


@pytest.mark.parametrize(
    ("side", "overlap", "starts"),
    [
        (640, 0.333, [0, 256]),
        (384, 0.333, [0]),
        (385, 0.333, [0, 1]),
        (1000, 0.0, [0, 384, 616]),
        (1000, 0.5, [0, 192, 384, 576, 616]),
        (386, 0.9999, [0, 1, 2]),
    ],
)
def test_windows_cover_a_side_with_the_last_shifted_inwards(side: int, overlap: float, starts: list[int]):
    assert SlidingWindow(kernel=384, overlap=overlap).starts(side) == starts


def test_images_are_not_changed():
    image = torch.randn(3, 30, 30)
    before = image.clone()
    run(SlidingWindow(0, 24), [image], Classifier(24))
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, r"TEST\.SLIDING_WINDOW\.OVERLAP must be in \[0, 1\), got 1\.0"),
        ({"overlap": -0.1}, r"TEST\.SLIDING_WINDOW\.OVERLAP"),
        ({"canvas": 383}, r"TEST\.SLIDING_WINDOW\.CANVAS \(383\) must be 0 or at least KERNEL \(384\)"),
        ({"kernel": 0, "canvas": 0}, r"TEST\.SLIDING_WINDOW\.KERNEL"),
        ({"batch_size": 0}, r"TEST\.SLIDING_WINDOW.*BATCH_SIZE must be at least 1"),
    ],
)
def test_impossible_window_is_refused_with_its_key(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SlidingWindow(**options)


def test_window_shrinks_to_a_small_image_that_is_padded_evenly():
    slide = SlidingWindow(canvas=0, kernel=32, overlap=0.5, global_view=False, fit=8)
    images = [torch.randn(3, 19, 50), torch.randn(3, 40, 40), torch.randn(3, 16, 8)]
    seen: list[tuple[int, ...]] = []

    def classify(windows: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(windows.shape))
        return windows

    found = run(slide, images, classify)
    assert seen == [(3, 3, 24, 32), (4, 3, 32, 32), (1, 3, 16, 8)]  # images of other windows are other batches
    for scores, image in zip(found, images, strict=True):
        torch.testing.assert_close(scores, image)
    (_, first), *_ = slide.views(images)
    torch.testing.assert_close(first[0, :, 2:21], images[0][:, :, :32])  # 5 rows are missing: 2 above, 3 below
    assert not first[:, :, :2].any()
    assert not first[:, :, 21:].any()
