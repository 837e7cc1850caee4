"""The public API: an image and a list of words in, a label map out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import ovrs
from ovrs import Prediction, Predictor
from ovrs.config import ConfigError, load_config
from ovrs.data import DataError
from ovrs.errors import VocabularyError, WeightsError

T = Image.Transpose
TURNS = {  # how a viewer turns a stored picture, by EXIF's number
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_270,
    7: T.TRANSVERSE,
    8: T.ROTATE_90,
}
CLASSES = ["building|house|roof", "road", "open water"]


@pytest.fixture
def predictor(trained):
    return Predictor.from_files(trained / "config.yaml", trained / "model_final.pth")


@pytest.fixture
def image():
    """RGB noise of an odd, oblong size."""
    return np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)


def assert_equal(first: Prediction, second: Prediction) -> None:
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.scores, second.scores)


# ---------------------------------------------------------------------- what comes out


def test_result_has_the_size_of_the_image_and_the_names_of_the_classes(predictor, image):
    found = predictor(image, CLASSES)
    assert found.names == ("building", "road", "open water")
    assert found.labels.shape == found.scores.shape == image.shape[:2]
    assert found.labels.dtype == np.uint8
    assert found.scores.dtype == np.float32
    assert set(np.unique(found.labels)) <= {0, 1, 2}
    assert 0 <= found.scores.min() <= found.scores.max() <= 1


def test_result_keeps_the_size_where_images_are_enlarged_first(trained, image):
    overrides = ["INPUT.MIN_SIZE_TEST", "90"]
    predictor = Predictor.from_files(trained / "config.yaml", trained / "model_final.pth", overrides)
    assert predictor(image, CLASSES).labels.shape == (45, 70)


def test_array_and_file_give_the_same(predictor, image, tmp_path):
    path = tmp_path / "my town.png"
    Image.fromarray(image).save(path)
    expected = predictor(image, CLASSES)
    assert_equal(predictor(path, CLASSES), expected)
    assert_equal(predictor(str(path), CLASSES), expected)
    assert_equal(predictor(image[:, ::-1][:, ::-1], CLASSES), expected)  # a view that is not contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photograph_is_seen_as_viewers_show_it_and_labelled_as_it_is_stored(predictor, image, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "photo.png", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "photo.png")))
    found, upright = predictor(tmp_path / "photo.png", CLASSES, probabilities=True), predictor(shown, CLASSES)
    assert found.labels.shape == image.shape[:2]
    assert found.probabilities.shape == (3, *image.shape[:2])
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), found.labels)
    places = np.arange(found.labels.size).reshape(image.shape[:2]).astype(np.int32)
    pixels = Image.fromarray(places)
    turned = np.asarray(pixels.transpose(TURNS[orientation])) if orientation > 1 else places
    np.testing.assert_array_equal(found.labels.ravel()[turned], upright.labels)


def test_grey_file_counts_as_three_equal_channels(predictor, image, tmp_path):
    grey = image[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert_equal(predictor(tmp_path / "grey.png", CLASSES), predictor(np.dstack([grey] * 3), CLASSES))


def test_synonyms_change_the_scores_and_not_the_names(predictor, image):
    plain = predictor(image, ["building", "road", "open water"])
    assert plain.names == predictor(image, CLASSES).names
    assert not np.array_equal(plain.scores, predictor(image, CLASSES).scores)


def test_classes_can_change_from_call_to_call(predictor, image):
    expected = predictor(image, CLASSES)
    assert predictor(image, ["tree", "grass"]).names == ("tree", "grass")
    assert_equal(predictor(image, CLASSES), expected)


def test_order_of_the_classes_only_renumbers(predictor, image):
    found, turned = predictor(image, CLASSES), predictor(image, CLASSES[::-1])
    assert len(np.unique(found.labels)) > 1
    np.testing.assert_array_equal(turned.labels, 2 - found.labels)
    np.testing.assert_allclose(turned.scores, found.scores, atol=1e-5)


# ---------------------------------------------------------------------- one image, many questions


def test_image_is_encoded_once_and_asked_often(predictor, image):
    expected = [predictor(image, classes) for classes in (CLASSES, ["tree", "grass"])]
    predictor.set_image(image)
    for tower in predictor.model.towers.values():
        tower.forward = None  # calling it would fail
    assert_equal(predictor.predict(CLASSES), expected[0])
    assert_equal(predictor.predict(["tree", "grass"]), expected[1])
    assert_equal(predictor.predict(CLASSES), expected[0])


def test_batch_of_images_equals_single_ones(predictor, image):
    images = [image, image[:30, :40], Image.fromarray(image[::-1])]
    expected = [predictor(each, CLASSES) for each in images]
    predictor.set_image(images)
    for batch in (predictor(images, CLASSES), predictor.predict(CLASSES)):
        assert len(batch) == 3
        for found, single in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(found.labels, single.labels)
            np.testing.assert_allclose(found.scores, single.scores, atol=1e-5)


def test_question_without_an_image_is_refused(predictor):
    with pytest.raises(ConfigError, match=r"call set_image\(image\) before predict"):
        predictor.predict(CLASSES)


# ---------------------------------------------------------------------- probabilities and thresholds


def test_probabilities_explain_labels_and_scores(predictor, image):
    assert predictor(image, CLASSES).probabilities is None
    found = predictor(image, CLASSES, probabilities=True)
    assert found.probabilities.shape == (3, 45, 70)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), found.labels)
    np.testing.assert_allclose(found.probabilities.max(axis=0), found.scores, atol=1e-6)


def test_weak_pixels_are_other(predictor, image):
    plain = predictor(image, CLASSES)
    threshold = float(np.median(plain.scores))
    found = predictor(image, CLASSES, threshold=threshold)
    assert found.names == (*plain.names, "other")
    np.testing.assert_array_equal(found.labels, np.where(plain.scores < threshold, 3, plain.labels))


@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_one_class_stands_against_everything_else(trained, image, loss):
    overrides = ["MODEL.LOSS.NAME", loss]
    predictor = Predictor.from_files(trained / "config.yaml", trained / "model_final.pth", overrides)
    found = predictor(image, ["road"], threshold=0.0, probabilities=True)
    assert found.names == ("road", "other")
    share = float(np.quantile(found.probabilities[0], 0.3))
    found = predictor(image, ["road"], threshold=share)
    assert set(np.unique(found.labels)) == {0, 1}
    default = predictor(image, ["road"])
    assert_equal(default, predictor(image, ["road"], threshold=0.5))


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 \[8, 8, 3\]"),
        (np.zeros((8, 8), np.uint8), r"uint8 \[8, 8\]"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \[3, 8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \[8, 8, 4\]"),
    ],
    ids=["floats", "grey", "channels first", "alpha"],
)
def test_array_of_another_kind_is_refused(predictor, wrong, got):
    with pytest.raises(DataError, match=rf"image must be uint8 \[H, W, 3\], got {got}"):
        predictor(wrong, CLASSES)


def test_file_that_is_no_image_is_named(predictor, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(DataError, match=r"notes\.png is no image file"):
        predictor(tmp_path / "notes.png", CLASSES)


def test_one_string_instead_of_a_list_is_refused(predictor, image):
    with pytest.raises(VocabularyError, match=r"must be a list of strings, got the single string 'wood'"):
        predictor(image, "wood")


def test_missing_weights_are_named(trained, tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        Predictor.from_files(trained / "config.yaml", tmp_path / "absent.pth")


def test_configuration_without_weights_is_refused(tiny_cfg):
    with pytest.raises(ConfigError, match=r"MODEL\.WEIGHTS is empty"):
        Predictor(tiny_cfg)


def test_checkpoint_of_another_configuration_is_refused(trained):
    overrides = ["MODEL.GSNET.HIDDEN_DIM", "16"]
    with pytest.raises(WeightsError, match=r"model_final\.pth: .* do not fit.* use the config file"):
        Predictor.from_files(trained / "config.yaml", trained / "model_final.pth", overrides)


# ---------------------------------------------------------------------- configurations


def test_frozen_configuration_is_taken_and_left_alone(trained):
    cfg = load_config(trained / "config.yaml", ["MODEL.WEIGHTS", str(trained / "model_final.pth")])
    cfg.MODEL.DEVICE = "auto"
    cfg.freeze()
    predictor = Predictor(cfg)
    assert not predictor.model.training
    assert cfg.is_frozen()
    assert cfg.MODEL.DEVICE == "auto"


def test_run_of_a_gpu_is_used_without_one(trained, image, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    overrides = ["MODEL.DEVICE", "cuda"]  # as training on a GPU writes it down
    predictor = Predictor.from_files(trained / "config.yaml", trained / "model_final.pth", overrides)
    assert predictor.model.device.type == "cpu"


# ---------------------------------------------------------------------- the package's front door


def test_importing_the_package_loads_no_heavy_library():
    heavy = ("torch", "numpy", "detectron2", "open_clip", "ovrs.predictor")
    code = f"import sys, ovrs; print([name for name in {heavy} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output == "[]\n"


def test_public_names_are_those_of_the_predictor_module():
    assert (ovrs.Predictor, ovrs.Prediction) == (ovrs.predictor.Predictor, ovrs.predictor.Prediction)


def test_every_public_name_leads_somewhere():
    assert {"Predictor", "get_cfg", "load_config", "list_heads", "list_datasets", "list_models"} <= set(ovrs.__all__)
    for name in ovrs.__all__:
        assert getattr(ovrs, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ovrs' has no attribute 'Predicter'"):
        ovrs.Predicter  # noqa: B018 - the access is what is tested
