"""Looking into a model: what is recorded is the model's own, and every kind of quantity can be drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovrs.config import load_config
from ovrs.errors import ConfigError, VocabularyError
from ovrs.explain import Explainer, draw, draw_streams
from ovrs.heads import Quantity

CLASSES = ["water|river", "tree", "road"]


@pytest.fixture(scope="module")
def explainer(trained_once):
    """A small GSNet after a short training."""
    return Explainer(
        load_config(trained_once / "config.yaml", ["MODEL.WEIGHTS", str(trained_once / "model_final.pth")])
    )


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)


def test_scores_are_those_of_the_view_that_is_shown(explainer, picture):
    found = explainer(picture, CLASSES)
    model = explainer.model
    with torch.inference_mode():
        logits = model.classify(model.embed(found.view.pixels[None]), model.vocabulary(CLASSES))
    np.testing.assert_array_equal(found.values["scores"], logits[0].sigmoid().numpy())


def test_picture_is_what_the_model_saw_of_the_image(explainer, picture):
    found = explainer(picture, CLASSES)
    # The tiny configuration has a view of the whole image, squashed to 32 pixels.
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    squashed = F.interpolate(pixels, size=(32, 32), mode="bilinear")[0].permute(1, 2, 0)
    assert np.abs(found.picture - squashed.numpy()).max() <= 0.51


def test_compiled_and_recorded_models_are_shown_too(trained_once, picture):
    overrides = [
        "MODEL.WEIGHTS",
        str(trained_once / "model_final.pth"),
        "TEST.COMPILE",
        "all",
        "TEST.CUDA_GRAPHS",
        "True",
    ]
    found = Explainer(load_config(trained_once / "config.yaml", overrides))(picture, CLASSES, ["decoder_1"])
    assert list(found.values) == ["decoder_1"]


def test_every_quantity_can_be_drawn(explainer, picture):
    for point in (None, (30, 20)):
        found = explainer(picture, CLASSES, point=point)
        for name in found.values:
            drawn = draw(found, name)
            assert drawn.dtype == np.uint8
            assert drawn.shape[2] == 3
            assert drawn.std() > 10
    assert not np.array_equal(draw(found, "correlation"), draw(found, "correlation", own_scales=True))


def test_streams_stand_below_each_other(explainer, picture):
    found = explainer(picture, CLASSES, ["scores", "correlation", "prior_correlation"])
    assert len(draw_streams(found)) > 2.5 * len(draw(found, "correlation"))
    assert draw_streams(explainer(picture, CLASSES, ["correlation", "fused"])) is None


def test_many_classes_take_several_rows(explainer, picture):
    few, many = (explainer(picture, [f"thing {i}" for i in range(count)], ["correlation"]) for count in (8, 20))
    assert len(draw(many, "correlation")) > 2.5 * len(draw(few, "correlation"))


@pytest.mark.parametrize("kind", ["map", "relations", "class_values"])
def test_kinds_that_this_head_has_not_can_be_drawn(explainer, picture, monkeypatch, kind):
    shapes = {"map": (1, 3, 4), "relations": (1, 3, 4, 3, 4), "class_values": (1, 3)}
    values = torch.rand(shapes[kind], generator=torch.Generator().manual_seed(0))
    own = {"mine": Quantity(kind, "random", lambda seen: values)}
    monkeypatch.setattr(type(explainer.model.head), "quantities", lambda head: own)
    found = explainer(picture, CLASSES, ["mine"], point=(59, 47))
    assert draw(found, "mine").std() > 10
    other = explainer(picture, CLASSES, ["mine"], point=(0, 0))
    assert kind == "class_values" or (draw(found, "mine").shape == draw(other, "mine").shape)
    if kind == "relations":  # another cell relates to others in another way
        assert (draw(found, "mine") != draw(other, "mine")).any()


def test_arrays_hold_all_numbers_and_the_names(explainer, picture, tmp_path):
    found = explainer(picture, CLASSES, ["scores", "fused"])
    with np.load(found.save_arrays(tmp_path / "folder" / "arrays.npz")) as arrays:
        assert set(arrays) == {"scores", "fused", "names"}
        np.testing.assert_array_equal(arrays["fused"], found.values["fused"])
        assert arrays["names"].tolist() == ["water", "tree", "road"]


def test_what_does_not_exist_is_refused(explainer, picture):
    with pytest.raises(ConfigError, match=r"--show must be one of .*'corelation'.*Did you mean 'correlation'\?"):
        explainer(picture, CLASSES, ["corelation"])
    for point in ((60, 3), (3, 48), (-1, 0)):
        with pytest.raises(ConfigError, match="outside the image of 60 x 48 pixels"):
            explainer(picture, CLASSES, point=point)
    with pytest.raises(VocabularyError):
        explainer(picture, ["water"])
