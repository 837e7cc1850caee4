from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovrs.data.card import load_card
from ovrs.data.catalog import resolve_datasets
from ovrs.demo import CLASS_COLOURS, CLASSES, RENAMED_CLASSES, Label, dataset, render_scene, scene_rng
from ovrs.demo.canvas import Box, Canvas, Curve, fill_polygon
from ovrs.demo.dataset import write_scenes
from ovrs.demo.objects import cast_shadows, draw_cars

SIZE = 64


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(scene_rng(0, "train", index)) for index in range(100)]


# One scene


@pytest.mark.parametrize("size", [64, 101, 700])
def test_scene_is_a_photo_with_a_class_for_every_pixel(size):
    image, labels = render_scene(np.random.default_rng(3), size)
    assert image.shape == (size, size, 3)
    assert labels.shape == (size, size)
    assert image.dtype == labels.dtype == np.uint8
    assert labels.max() < len(CLASSES)


def test_equal_generators_draw_equal_scenes_and_others_do_not():
    first, again, other = (render_scene(scene_rng(*key), SIZE) for key in ((1, "val", 2), (1, "val", 2), (1, "val", 3)))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0] != other[0]).any()


def test_seed_split_and_number_each_change_the_scene():
    draws = {scene_rng(*key).random() for key in ((0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1))}
    assert len(draws) == 4


def test_too_small_scene_is_refused():
    with pytest.raises(ValueError, match="size is 20; a scene needs at least 64"):
        render_scene(np.random.default_rng(0), 20)


# A set of scenes


def test_every_class_is_frequent_enough_to_learn(scenes):
    counts = np.bincount(np.concatenate([labels.ravel() for _, labels in scenes]), minlength=len(CLASSES))
    shares = dict(zip(Label, counts / counts.sum(), strict=True))
    assert shares.pop(Label.CAR) > 0.004
    assert min(shares.values()) > 0.01
    assert max(shares.values()) < 0.5


def features(image, texture):
    """Per pixel: the colour; with ``texture`` also statistics of its neighbourhood."""
    colour = image.astype(np.float32)
    maps = [colour]
    if texture:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        gx, gy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
        for side in (7, 21):

            def mean(values, side=side):
                return cv2.blur(values, (side, side))

            variance = np.maximum(mean(grey**2) - mean(grey) ** 2, 0)
            direction = np.hypot(mean(gx**2 - gy**2), 2 * mean(gx * gy)) / (mean(gx**2 + gy**2) + 1)
            maps += [mean(colour), np.log1p(variance), np.log1p(mean(np.hypot(gx, gy))), direction]
    return np.dstack(maps).reshape(-1, sum(np.atleast_3d(values).shape[2] for values in maps))


def gaussian_classifier_miou(train, test, texture, stride=11):
    """Mean IoU of one Gaussian per class, fitted on ``train`` and scored on ``test``."""

    def pixels(scenes):
        values = np.concatenate([features(image, texture)[::stride] for image, _ in scenes])
        return values, np.concatenate([labels.ravel()[::stride] for _, labels in scenes])

    x, y = pixels(train)
    queries, truth = pixels(test)
    scores = []
    for label in Label:
        own = x[y == label]
        covariance = np.cov(own.T) + 1e-3 * np.eye(x.shape[1])
        offset = queries - own.mean(axis=0)
        distance = np.einsum("ij,ij->i", offset @ np.linalg.inv(covariance), offset)
        scores.append(np.log(len(own) / len(x)) - 0.5 * (distance + np.linalg.slogdet(covariance)[1]))
    guess = np.argmax(scores, axis=0)
    return np.mean([((guess == k) & (truth == k)).sum() / ((guess == k) | (truth == k)).sum() for k in Label])


def test_colour_alone_does_not_separate_the_classes_but_texture_helps(scenes):
    train, test = scenes[:60], scenes[60:]
    colour = gaussian_classifier_miou(train, test, texture=False)
    texture = gaussian_classifier_miou(train, test, texture=True)
    assert colour < 0.45
    assert texture > colour + 0.2


# Class strings


def words(classes):
    return {word for text in classes for word in text.replace("|", " ").split()}


def test_renamed_classes_share_no_word_with_the_training_classes():
    assert len(CLASSES) == len(RENAMED_CLASSES) == len(Label) == len(CLASS_COLOURS)
    assert not words(CLASSES) & words(RENAMED_CLASSES)


def test_class_strings_follow_the_order_of_the_labels():
    assert [label.name.lower().replace("_", " ") for label in Label] == [text.split("|")[0] for text in CLASSES]


# Geometry


@pytest.fixture
def canvas():
    canvas = Canvas(np.random.default_rng(0), 128)
    canvas.image[:] = 0.5
    return canvas


@pytest.mark.parametrize("heading", [0.0, 0.4, 2.0])
def test_box_covers_its_area_where_it_stands(canvas, heading):
    box = Box(60, 70, heading, 20, 9)
    region, _, _, coverage = box.raster(canvas)
    canvas.paint(coverage, (1, 0, 0), Label.BUILDING, region)
    ys, xs = np.nonzero(canvas.labels == Label.BUILDING)
    assert coverage.sum() == pytest.approx(40 * 18, rel=0.03)
    assert (xs.mean(), ys.mean()) == pytest.approx((60, 70), abs=0.6)
    mask = np.zeros((128, 128), bool)
    fill_polygon(mask, box.corners(margin=1.5))
    assert mask[ys, xs].all()


def test_box_beyond_the_border_paints_nothing(canvas):
    region, _, _, coverage = Box(-50, 200, 0.3, 10, 5).raster(canvas)
    canvas.paint(coverage, (1, 0, 0), Label.BUILDING, region)
    assert not (canvas.labels == Label.BUILDING).any()


@pytest.mark.parametrize(("along", "across"), [(0, 0), (12, 0), (-20, 8), (25, -10)])
def test_points_of_a_curve_have_the_coordinates_they_were_made_from(canvas, along, across):
    curve = Curve(64, 60, 0.7, 10, 220, 1.0)
    x, y, _ = curve.point(along, across)
    column, row = round(x), round(y)
    found_across = curve.coordinates(canvas)[1][row, column]
    assert found_across == pytest.approx(across, abs=1.5)


def test_heading_of_a_curve_points_along_it():
    curve = Curve(64, 60, 0.7, 10, 220, 1.0)
    (x0, y0, _), (_, _, heading), (x1, y1, _) = (curve.point(along, 0) for along in (9.9, 10, 10.1))
    assert math.atan2(y1 - y0, x1 - x0) == pytest.approx(heading, abs=1e-3)


@pytest.mark.parametrize("scale", [1, 2.5, 40])
def test_noise_has_about_unit_deviation_and_the_asked_for_smoothness(scale):
    canvas = Canvas(np.random.default_rng(5), 512)
    noise = canvas.noise(scale)
    assert noise.shape == (512, 512)
    assert noise.std() == pytest.approx(1, abs=0.25)
    roughness = np.abs(np.diff(noise, axis=0)).mean()
    assert roughness == pytest.approx(1.2 / scale, rel=0.4)


def test_occupied_land_is_not_free_and_land_beyond_the_border_neither(canvas):
    canvas.occupy(Box(40, 40, 0.5, 10, 6).corners())
    assert not canvas.is_free(Box(52, 44, 0.0, 8, 4).corners())
    assert canvas.is_free(Box(90, 44, 0.0, 8, 4).corners())
    assert canvas.is_free(Box(124, 90, 0.0, 8, 4).corners())  # partly outside
    assert not canvas.is_free(Box(130, 90, 0.0, 8, 4).corners())


def test_shadow_darkens_the_ground_away_from_the_sun_and_keeps_its_label(canvas):
    canvas.sun = np.array([1, 0], np.float32)
    canvas.shadow_per_height = 1.0
    before = canvas.labels.copy()
    cast_shadows(canvas, [(Box(64, 64, 0.0, 5, 5), 20)])
    np.testing.assert_array_equal(canvas.labels, before)
    assert canvas.image[64, 45].max() < 0.3  # within 20 pixels on the far side
    assert canvas.image[64, 35].min() == pytest.approx(0.5)  # beyond the shadow's end
    assert canvas.image[64, 75].min() == pytest.approx(0.5)  # towards the sun


def test_cars_are_labelled_where_they_stand_and_their_shadows_are_not(canvas):
    draw_cars(canvas, [Box(30, 40, 0.0, 4.5, 2.1), Box(90, 80, math.pi / 2, 4.5, 2.1)])
    cars = canvas.labels == Label.CAR
    assert cars[40, 30]
    assert cars[80, 90]
    assert cars.sum() == pytest.approx(2 * 9 * 4.2, rel=0.25)
    assert (canvas.image.mean(axis=-1) < 0.45)[~cars].any()


# The data set on disk


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    return write_scenes(tmp_path / "demo scenes", train=3, val=2, size=SIZE, seed=4)


def test_written_files_hold_the_scenes(folder):
    for split, count in (("train", 3), ("val", 2)):
        for index in range(count):
            image, labels = render_scene(scene_rng(4, split, index), SIZE)
            np.testing.assert_array_equal(np.asarray(Image.open(folder / f"images/{split}/{index:04d}.png")), image)
            stored = Image.open(folder / f"labels/{split}/{index:04d}.png")
            assert stored.mode == "P"
            np.testing.assert_array_equal(np.asarray(stored), labels)
            np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), CLASS_COLOURS[labels])
    assert len(snapshot(folder)) == 2 * 5 + 3


def test_cards_load_and_register_with_their_own_class_strings(folder):
    for name, classes in (("scenes", CLASSES), ("scenes_renamed", RENAMED_CLASSES)):
        card = load_card(folder / f"{name}.yaml")
        assert card.classes == classes
        assert card.labelled_classes == tuple(range(len(classes)))
        for split, count in (("train", 3), ("val", 2)):
            (registered,) = resolve_datasets([f"{folder / name}.yaml:{split}"])
            assert len(DatasetCatalog.get(registered)) == count
            assert MetadataCatalog.get(registered).card.classes == classes


def test_second_call_with_equal_arguments_writes_nothing(folder, monkeypatch):
    def fail(*args):
        raise AssertionError("drew a scene again")

    before = snapshot(folder)
    monkeypatch.setattr(dataset, "render_scene", fail)
    write_scenes(folder, train=3, val=2, size=SIZE, seed=4)
    assert snapshot(folder) == before


def test_other_arguments_replace_the_whole_set(folder, tmp_path):
    write_scenes(folder, train=2, val=1, size=SIZE, seed=5)
    fresh = write_scenes(tmp_path / "fresh", train=2, val=1, size=SIZE, seed=5)
    assert snapshot(folder) == snapshot(fresh)


def test_larger_set_starts_with_the_smaller_one(folder, tmp_path):
    larger = snapshot(write_scenes(tmp_path / "larger", train=4, val=3, size=SIZE, seed=4))
    smaller = {path: content for path, content in snapshot(folder).items() if path.suffix == ".png"}
    assert smaller.items() < larger.items()


@pytest.mark.parametrize("lost", ["images/train/0001.png", "labels/val/0000.png", "scenes_renamed.yaml"])
def test_lost_file_is_written_again(folder, lost):
    before = snapshot(folder)
    (folder / lost).unlink()
    write_scenes(folder, train=3, val=2, size=SIZE, seed=4)
    assert snapshot(folder) == before


def test_interrupted_call_is_made_up_for(folder, monkeypatch):
    drawn = []

    def fail_at_second_scene(rng, size):
        drawn.append(size)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return render_scene(rng, size)

    before = snapshot(folder)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "render_scene", fail_at_second_scene)
        with pytest.raises(KeyboardInterrupt):
            write_scenes(folder, train=3, val=2, size=SIZE, seed=9)
    assert json.loads((folder / "scenes.json").read_text())["complete"] is False
    write_scenes(folder, train=3, val=2, size=SIZE, seed=4)
    assert snapshot(folder) == before


def test_images_of_others_are_never_overwritten(tmp_path):
    own = tmp_path / "images" / "train" / "0000.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"0000\.png was not written by this function"):
        write_scenes(tmp_path, train=1, val=1, size=SIZE)
    assert own.read_bytes() == b"mine"


def test_broken_manifest_is_named(folder):
    (folder / "scenes.json").write_text("{")
    with pytest.raises(ValueError, match=r"scenes\.json is not valid JSON"):
        write_scenes(folder, train=3, val=2, size=SIZE, seed=4)


@pytest.mark.parametrize("argument", [{"train": 0}, {"val": 0}, {"size": 10}, {"seed": -1}])
def test_argument_out_of_range_is_named_and_nothing_written(tmp_path, argument):
    name = next(iter(argument))
    with pytest.raises(ValueError, match=f"{name} is .*; it must be at least"):
        write_scenes(tmp_path / "x", **{"train": 1, "val": 1, **argument})
    assert not (tmp_path / "x").exists()
