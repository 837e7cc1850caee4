from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from ovrs.inference import ScoreMap, WholeImage
from ovrs.scores import enlarge


def coarse(images: torch.Tensor) -> torch.Tensor:
    """Scores at a quarter of the resolution, as a decoder gives them."""
    return F.avg_pool2d(images, 4)


def ramp(height: int, width: int) -> torch.Tensor:
    """Three planes: the row, the column and their sum; zero is not among them, so padding would show."""
    rows, columns = torch.meshgrid(torch.arange(height) + 100.0, torch.arange(width) + 100.0, indexing="ij")
    return torch.stack([rows, columns, rows + columns])


def whole_image_scores(
    images: list, sizes: list, classify: Callable, divisor: int, crop_padding: bool = True, batch_size: int = 8
) -> list[ScoreMap]:
    """Score maps of images that a plan put through ``classify``."""
    plan = WholeImage(divisor, crop_padding, batch_size)
    scored = ((keys, classify(views)) for keys, views in plan.views(images))
    return plan.merge([tuple(image.shape[-2:]) for image in images], sizes, scored)


def at_full_size(
    images: list, sizes: list, classify: Callable, divisor: int, crop_padding: bool = True
) -> list[torch.Tensor]:
    """The scores enlarged and cut to the wanted size, all classes at once."""
    maps = whole_image_scores(images, sizes, classify, divisor, crop_padding)
    assert [found.size for found in maps] == sizes
    return [enlarge(found.scores, found.full)[:, :h, :w] for found, (h, w) in zip(maps, sizes, strict=True)]


@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_multiples_of_the_divisor_are_enlarged_straight(size: tuple[int, int]):
    image = torch.rand(3, *size)
    seen = []

    def classify(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return coarse(images)

    scores = at_full_size([image], [(100, 90)], classify, 32)[0]
    assert torch.equal(seen[0], image[None])
    torch.testing.assert_close(scores, F.interpolate(coarse(image[None]), size=(100, 90), mode="bilinear")[0])


@pytest.mark.parametrize("size", [(30, 33), (1, 31), (65, 40)])
def test_padding_is_cut_off_again(size: tuple[int, int]):
    image = ramp(*size)
    seen = []

    def classify(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape[-2:]))
        return images

    scores = at_full_size([image], [size], classify, 32)[0]
    assert seen == [tuple(-(-side // 32) * 32 for side in size)]
    assert torch.equal(scores, image)


def test_padding_does_not_stretch_an_enlarged_result():
    image = ramp(40, 50)
    scores = at_full_size([image], [(80, 100)], lambda images: images, 32)[0]
    assert scores.shape == (3, 80, 100)
    expected = F.interpolate(image[None], size=(80, 100), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(scores[:, :-2, :-2], expected[:, :-2, :-2])


@pytest.mark.parametrize(("size", "wanted"), [((30, 33), (60, 99)), ((40, 64), (40, 64)), ((1, 31), (20, 20))])
def test_padding_that_stays_is_stretched_into_the_result(size: tuple[int, int], wanted: tuple[int, int]):
    image = ramp(*size)
    scores = at_full_size([image], [wanted], lambda images: images, 32, crop_padding=False)[0]
    padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32))
    expected = F.interpolate(padded[None], size=wanted, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(scores, expected)
    assert scores.min() < 100, "zeros of the padding belong to the result"


@pytest.mark.parametrize("size", [(32, 64), (64, 64)])
def test_fate_of_the_padding_does_not_matter_where_there_is_none(size: tuple[int, int]):
    image = torch.rand(3, *size)
    cut, kept = (at_full_size([image], [(50, 70)], coarse, 32, crop)[0] for crop in (True, False))
    assert torch.equal(cut, kept)


def test_each_image_has_its_own_size():
    images = [torch.rand(3, 20, 30), torch.rand(3, 32, 32), torch.rand(3, 50, 10)]
    sizes = [(20, 30), (64, 48), (25, 5)]
    together = at_full_size(images, sizes, coarse, 16)
    assert [tuple(scores.shape) for scores in together] == [(3, *size) for size in sizes]
    for image, size, scores in zip(images, sizes, together, strict=True):
        assert torch.equal(scores, at_full_size([image], [size], coarse, 16)[0])


@pytest.mark.parametrize(("size", "full"), [((32, 64), (1000, 2000)), ((40, 50), (1600, 2560))])
def test_scores_stay_as_small_as_the_model_makes_them(size: tuple[int, int], full: tuple[int, int]):
    (found,) = whole_image_scores([torch.rand(3, *size)], [(1000, 2000)], coarse, 32)
    assert found.scores.shape == (3, -(-size[0] // 32) * 8, -(-size[1] // 32) * 8)
    assert found.full == full


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_images_of_one_padded_size_share_a_pass(batch_size: int):
    sizes = [(32, 32), (30, 31), (64, 32), (32, 32), (20, 32)]
    images = [torch.rand(3, *size) for size in sizes]
    passes = []

    def classify(views: torch.Tensor) -> torch.Tensor:
        passes.append(tuple(views.shape))
        return coarse(views)

    together = whole_image_scores(images, sizes, classify, 32, batch_size=batch_size)
    assert len(passes) == {1: 5, 2: 3, 8: 2}[batch_size]
    for image, size, found in zip(images, sizes, together, strict=True):
        assert torch.equal(found.scores, whole_image_scores([image], [size], coarse, 32)[0].scores)
