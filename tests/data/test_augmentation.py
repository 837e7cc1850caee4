import numpy as np
import pytest
import torch

from ovrs.config import ConfigError, get_cfg
from ovrs.data.augmentation import (
    ColourJitter,
    Pad,
    RandomCrop,
    RandomFlip,
    RandomQuarterTurn,
    ResizeShortestEdge,
    SizeRule,
    build_augmentations,
    resize_image,
    resize_labels,
    resized_shape,
)
from ovrs.structures import IGNORE_LABEL


def make_pair(height=40, width=60):
    """An image whose every pixel differs and whose red channel is its labels."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    labels = ((rows // 7 + columns // 5) % 4).astype(np.uint8)
    return np.stack([labels, rows, columns], axis=-1), labels


def blocks(size=8, count=6):
    """Labels constant on blocks, so that bilinear and nearest resizing agree away from the borders."""
    labels = np.random.default_rng(1).integers(0, 3, (count, count)).astype(np.uint8)
    return np.kron(labels, np.ones((size, size), np.uint8))


@pytest.mark.parametrize(
    "step",
    [RandomCrop(24, 32), RandomCrop(24, 32, 0.5), RandomFlip((0,)), RandomFlip((1, 0)), RandomQuarterTurn()],
    ids=repr,
)
def test_image_and_labels_stay_aligned(step):
    image, labels = make_pair()
    results = set()
    for seed in range(20):
        new_image, new_labels = step(image, labels, np.random.default_rng(seed))
        np.testing.assert_array_equal(new_image[..., 0], new_labels)
        results.add(new_image.tobytes())
    assert len(results) > 1
    np.testing.assert_array_equal(image, make_pair()[0])


def test_the_same_generator_gives_the_same_result():
    cfg = get_cfg()
    cfg.INPUT.RANDOM_FLIP_VERTICAL = cfg.INPUT.RANDOM_ROTATE90 = True
    cfg.INPUT.CROP.SIZE = [24, 24]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING, cfg.INPUT.PAD_TO = (30, 60), "range", 32

    def run(seed):
        pair, rng = make_pair(), np.random.default_rng(seed)
        for step in build_augmentations(cfg):
            pair = step(*pair, rng)
        return pair

    np.random.seed(0)  # noqa: NPY002 (the global state must play no part)
    first = [run(seed) for seed in range(5)]
    for seed, (image, labels) in enumerate(first):
        assert image.shape == (32, 32, 3)
        np.testing.assert_array_equal(run(seed)[0], image)
        np.testing.assert_array_equal(run(seed)[1], labels)
    assert len({image.tobytes() for image, _ in first}) == 5


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        ((512, 512), (384, 1333), (384, 384)),
        ((300, 400), (384, 1333), (384, 512)),
        ((100, 1000), (384, 1333), (133, 1333)),
        ((333, 500), (100, 0), (100, 150)),
        ((1000, 1001), (640, 2560), (640, 641)),  # 640.64 rounds half up
        ((77, 5000), (0, 100), (77, 5000)),
    ],
)
def test_shortest_side_is_met_within_the_bound_of_the_longest(size, limits, expected):
    assert resized_shape(*size, *limits) == expected


@pytest.mark.parametrize("size", [(5, 9), (37, 64), (100, 3)])
def test_labels_are_resized_by_the_floor_rule(size):
    labels = np.random.default_rng(0).integers(0, 256, (17, 23)).astype(np.uint8)
    resized = resize_labels(labels, *size)
    expected = torch.nn.functional.interpolate(torch.from_numpy(labels.astype(np.float64))[None, None], size=size)[0, 0]
    np.testing.assert_array_equal(resized, expected.numpy().astype(np.uint8))
    rows, columns = (
        np.floor(np.arange(n) * np.float32(m / n)).astype(int) for n, m in zip(size, labels.shape, strict=True)
    )
    np.testing.assert_array_equal(resized, labels[rows][:, columns])


def test_resized_image_and_labels_stay_aligned():
    labels = blocks()
    image = np.repeat(labels[..., None] * 100, 3, axis=-1)
    for seed in range(5):
        new_image, new_labels = ResizeShortestEdge((24, 96), 200, "range")(image, labels, np.random.default_rng(seed))
        assert new_image.shape[:2] == new_labels.shape
        agreement = (np.rint(new_image[..., 0] / 100) == new_labels).mean()
        assert agreement > 0.85  # all but the borders of the blocks


def test_shrinking_filters_the_image():
    stripes = np.repeat(np.tile(np.array([0, 255], np.uint8), 32)[None, :, None], 3, axis=-1).repeat(64, axis=0)
    assert np.abs(resize_image(stripes, 16, 16).astype(int) - 127).max() < 20


def test_lengths_are_chosen_or_drawn_from_a_range():
    def lengths(step):
        return {step(*make_pair(), np.random.default_rng(seed))[1].shape[0] for seed in range(60)}

    assert lengths(ResizeShortestEdge((20, 30), 1000)) == {20, 30}
    assert lengths(ResizeShortestEdge((20, 23), 1000, "range")) == {20, 21, 22, 23}


def test_crop_keeps_sides_that_are_too_short_and_reaches_every_border():
    rng = np.random.default_rng(0)
    crops = [RandomCrop(64, 50)(*make_pair(), rng)[0] for _ in range(100)]
    assert {crop.shape for crop in crops} == {(40, 50, 3)}
    assert {int(crop[0, 0, 2]) for crop in crops} == set(range(11))


def test_crops_of_one_class_are_redrawn():
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 48:] = 1
    labels[:16] = IGNORE_LABEL  # ignored pixels do not count as a class
    image = np.zeros((64, 64, 3), np.uint8)

    def share_of_one_class(limit):
        crops = [RandomCrop(16, 16, limit)(image, labels, np.random.default_rng(seed))[1] for seed in range(200)]
        counts = [np.bincount(crop[crop != IGNORE_LABEL], minlength=2) for crop in crops]
        return np.mean([count.max() >= 0.75 * count.sum() for count in counts])

    assert share_of_one_class(1.0) > 0.6
    assert share_of_one_class(0.75) < 0.2


def test_crop_without_any_label_is_still_returned():
    labels = np.full((20, 20), IGNORE_LABEL, np.uint8)
    _, cropped = RandomCrop(8, 8, 0.75)(np.zeros((20, 20, 3), np.uint8), labels, np.random.default_rng(0))
    assert cropped.shape == (8, 8)


def test_jitter_leaves_labels_and_one_image_in_sixteen_alone():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    labels = np.zeros((16, 16), np.uint8)
    unchanged = 0
    for seed in range(400):
        jittered, same = ColourJitter()(image, labels, np.random.default_rng(seed))
        assert same is labels
        assert jittered.dtype == np.uint8
        assert jittered.shape == image.shape
        unchanged += np.array_equal(jittered, image)
    assert 10 <= unchanged <= 45  # (1/2)^4 of 400 is 25


def test_jitter_of_brightness_shifts_all_channels_within_its_bound():
    image = np.full((2, 2, 3), 100, np.uint8)
    only_brightness = ColourJitter(contrast=(1, 1), saturation=(1, 1), hue=0)
    labels = np.zeros((2, 2), np.uint8)
    values = [int(only_brightness(image, labels, np.random.default_rng(s))[0][0, 0, 0]) for s in range(300)]
    assert 68 <= min(values) < 75
    assert 125 < max(values) <= 132


def test_jitter_of_hue_keeps_grey_grey():
    image = np.full((2, 2, 3), 90, np.uint8)
    step = ColourJitter(brightness=0, contrast=(1, 1))
    for seed in range(50):
        np.testing.assert_array_equal(step(image, np.zeros((2, 2), np.uint8), np.random.default_rng(seed))[0], image)


def test_balanced_crops_show_every_class_equally_often():
    labels = np.zeros((60, 80), np.uint8)
    labels[50:] = 1
    labels[3:5, 70:73] = 2
    labels[:, :2] = 255
    image = np.dstack([labels] * 3)
    seen = np.zeros(3)
    rng = np.random.default_rng(0)
    for _ in range(300):
        cut, shown = RandomCrop(16, 16, class_balance=1.0)(image, labels, rng)
        assert cut.shape == (16, 16, 3)
        assert shown.shape == (16, 16)
        np.testing.assert_array_equal(cut[..., 0], shown)
        seen += [np.any(shown == label) for label in range(3)]
    assert (seen >= 300 / 3 * 0.8).all()
    plain = sum(np.any(RandomCrop(16, 16)(image, labels, rng)[1] == 2) for _ in range(300))
    assert seen[2] > 2 * plain


@pytest.mark.parametrize("size", [(16, 16), (100, 16), (100, 100)])
def test_balanced_crops_of_unlabelled_or_small_images_stay_inside(size):
    rng = np.random.default_rng(0)
    for labels in (np.full((40, 30), 255, np.uint8), np.eye(40, 30, dtype=np.uint8)):
        for _ in range(20):
            _, shown = RandomCrop(*size, class_balance=1.0)(np.dstack([labels] * 3), labels, rng)
            assert shown.shape == (min(size[0], 40), min(size[1], 30))


def test_flip_goes_both_ways_equally_often():
    image, labels = make_pair()
    flipped = [RandomFlip((1,))(image, labels, np.random.default_rng(seed))[1] for seed in range(200)]
    share = np.mean([np.array_equal(result, labels[:, ::-1]) for result in flipped])
    assert 0.4 < share < 0.6
    assert all(np.array_equal(r, labels) or np.array_equal(r, labels[:, ::-1]) for r in flipped)


def test_padding_is_right_and_below_and_ignored():
    image, labels = Pad(50)(*make_pair(40, 60), np.random.default_rng(0))
    assert image.shape == (50, 60, 3)
    np.testing.assert_array_equal(image[:40], make_pair()[0])
    assert (image[40:] == 128).all()
    assert (labels[40:] == IGNORE_LABEL).all()


def test_default_configuration_is_the_recipe_of_gsnet():
    assert build_augmentations(get_cfg()) == (
        ResizeShortestEdge((384,), 1333),
        RandomCrop(384, 384, 1.0),
        ColourJitter(),
        RandomFlip((1,)),
        Pad(384),
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("RANDOM_FLIP", "diagonal", "RANDOM_FLIP must be one of none, horizontal, vertical, got 'diagonal'"),
        ("CROP.TYPE", "relative", "CROP.TYPE must be 'absolute'"),
        ("MIN_SIZE_TRAIN_SAMPLING", "range", "'range' with two bounds"),
        ("MIN_SIZE_TRAIN_SAMPLING", "any", "must be 'choice'"),
    ],
)
def test_unknown_values_are_refused_with_their_key(key, value, message):
    cfg = get_cfg()
    cfg.merge_from_list([f"INPUT.{key}", value])
    with pytest.raises(ConfigError, match=message):
        build_augmentations(cfg)


def test_padding_has_the_configured_colour():
    cfg = get_cfg()
    cfg.INPUT.PAD_TO, cfg.INPUT.PAD_VALUE = 50, [123, 117, 104]
    pad = build_augmentations(cfg)[-1]
    original, labels = make_pair(40, 60)
    image, labels = pad(original, labels, np.random.default_rng(0))
    np.testing.assert_array_equal(image[:40], original)
    assert (image[40:] == (123, 117, 104)).all()
    assert (labels[40:] == 255).all()


@pytest.mark.parametrize(
    ("shape", "expected"), [((1080, 1280), (378, 448)), ((896, 896), (448, 448)), ((40, 80), (224, 448))]
)
def test_images_fit_into_a_square_whichever_side_is_longer(shape: tuple[int, int], expected: tuple[int, int]):
    assert SizeRule(448, 448)(np.zeros((*shape, 3), np.uint8)).shape[:2] == expected


def test_without_antialiasing_a_pixel_is_made_of_its_neighbours_alone():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255
    assert np.ptp(SizeRule(16, 0, antialias=False)(stripes)) == 0  # sampled between the stripes
    assert SizeRule(16, 0, antialias=False)(stripes).max() == 0
    assert SizeRule(16, 0)(stripes).mean() == pytest.approx(255 / 4, abs=2)
