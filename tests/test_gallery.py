"""Pictures of predictions for a whole data set."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ovrs import Predictor
from ovrs.data import DataError
from ovrs.gallery import draw_predictions
from ovrs.visualization import SHEET_ALPHA, overlay


@pytest.fixture
def draw(trained, tmp_path):
    """Draw with a trained model into a folder of this test's own."""
    predictor = Predictor.from_files(trained / "config.yaml", trained / "model_final.pth")

    def draw(dataset: str, **options: int) -> list[Path]:
        return draw_predictions(predictor.cfg, predictor.model, dataset, tmp_path / "pictures", **options)

    return draw


def width_of(picture: Path) -> int:
    return Image.open(picture).width


def test_every_image_of_a_data_set_gets_a_picture(draw, scenes, tmp_path):
    pictures = draw(f"{scenes / 'scenes.yaml'}:val")
    assert pictures == [tmp_path / "pictures" / "scenes_val" / f"{number:04d}.png" for number in range(3)]
    assert sorted((tmp_path / "pictures").rglob("*.png")) == pictures
    assert len({path.read_bytes() for path in pictures}) == 3


def test_limit_draws_the_first_images(draw, scenes):
    assert [path.stem for path in draw(f"{scenes / 'scenes.yaml'}:val", limit=2)] == ["0000", "0001"]


def test_picture_shows_image_truth_and_prediction_in_the_colours_of_the_card(draw, scenes):
    (picture,) = draw(f"{scenes / 'scenes.yaml'}:val", limit=1)
    sheet = np.asarray(Image.open(picture))
    image = np.asarray(Image.open(scenes / "images" / "val" / "0000.png"))
    truth = np.asarray(Image.open(scenes / "labels" / "val" / "0000.png"))
    colours = np.array(yaml.safe_load((scenes / "scenes.yaml").read_text())["palette"])
    top = next(row for row in range(len(sheet)) if (sheet[row, 8:72] == image[0]).all())
    assert (sheet[top : top + 64, 8:72] == image).all()
    assert (sheet[top : top + 64, 80:144] == overlay(image, truth, colours, SHEET_ALPHA)).all()
    of_one_class = [overlay(image, np.full_like(truth, k), colours, SHEET_ALPHA) for k in range(len(colours))]
    prediction = sheet[top : top + 64, 152:216]
    assert np.any([(prediction == tinted).all(-1) for tinted in of_one_class], axis=0).all()


def test_images_without_labels_get_a_picture_without_truth(draw, scenes, tmp_path):
    card = yaml.safe_load((scenes / "scenes.yaml").read_text())
    card |= {"name": "unlabelled", "splits": {"val": {"images": str(scenes / "images" / "val"), "labels": None}}}
    path = tmp_path / "unlabelled.yaml"
    path.write_text(yaml.safe_dump(card), encoding="utf-8")
    (with_truth,) = draw(f"{scenes / 'scenes.yaml'}:val", limit=1)
    (without,) = draw(str(path), limit=1)
    assert without.parent.name == "unlabelled_val"
    assert width_of(with_truth) - width_of(without) == 64 + 8  # a panel and its margin


def test_unknown_data_set_is_refused(draw):
    with pytest.raises(DataError, match=r"unknown data set 'hg_potsdam_5_vall'.*hg_potsdam_5_val"):
        draw("hg_potsdam_5_vall")
