"""Masking of single channels, in closed form and by the letter."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from ranking.colour_model import CHANNELS, INFORMATIVE

from ovrs.config import ConfigError
from ovrs.data import DataError
from ovrs.ranking import rank_channels, study_single_channels
from ovrs.ranking.pilot import spearman, without_each_channel
from ovrs.ranking.verify import verify_ranking


@pytest.fixture
def ranking(cfg, tower, town):
    return rank_channels(cfg, town, tower=tower)


def test_closed_form_is_that_of_masked_features_and_words():
    features, words = torch.randn(12, 5, 4), torch.randn(3, 12)
    features[4] *= 100  # one channel with nearly the whole norm, as CLIP has
    for channel, found in enumerate(without_each_channel(features, words)):
        image, text = features.double(), words.double()
        image[channel], text[:, channel] = 0, 0
        expected = torch.einsum("tc,chw->thw", F.normalize(text, dim=1), F.normalize(image, dim=0))
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6)
    assert channel == 11


def test_feature_of_a_single_channel_becomes_similar_to_nothing():
    *_, last = without_each_channel(torch.eye(3)[:, 2:, None], torch.rand(2, 3))
    assert last.abs().max() == 0


def test_drop_is_the_difference_to_all_channels(cfg, tower, town, ranking):
    study = study_single_channels(cfg, tower, ranking, town)
    everything = verify_ranking(cfg, tower, ranking, [town], ratios=[1.0]).top["town_train"]
    assert study.baseline == everything[0]
    order = ranking.order
    # All but the last channel of the ranking, and all but the first.
    curves = verify_ranking(cfg, tower, ranking, [town], ratios=[(CHANNELS - 1) / CHANNELS])
    assert study.drop[order[-1]] == pytest.approx(study.baseline - curves.top["town_train"][0], abs=0.05)
    assert study.drop[order[0]] == pytest.approx(study.baseline - curves.bottom["town_train"][0], abs=0.05)


def test_channels_that_tell_classes_apart_are_missed_most(cfg, tower, town, ranking):
    study = study_single_channels(cfg, tower, ranking, town)
    assert set(np.argsort(-study.drop)[:3]) == set(INFORMATIVE)
    assert study.correlation > 0.3
    assert (study.images, study.dataset) == (3, "town_train")


def test_images_are_drawn_by_the_seed(cfg, tower, write_town, ranking):
    rng = np.random.default_rng(0)
    dataset = write_town(*[rng.integers(0, 3, (4, 4)).repeat(16, 0).repeat(16, 1) for _ in range(6)], name="village")
    before = tower.vlm.passes
    first, again, other = (
        study_single_channels(cfg, tower, ranking, dataset, images=2, seed=seed) for seed in (1, 1, 2)
    )
    assert first.images == 2
    assert tower.vlm.passes - before == 6
    np.testing.assert_array_equal(first.drop, again.drop)
    assert not np.array_equal(first.drop, other.drop)


def test_results_are_written_as_numbers_page_and_plot(cfg, tower, town, ranking, tmp_path):
    study = study_single_channels(cfg, tower, ranking, town)
    paths = study.write(tmp_path / "a folder" / "pilot")
    assert [path.name for path in paths] == ["pilot.json", "pilot.md", "pilot.png"]
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    assert content["drop"] == study.drop.tolist()
    assert content["spearman"] == study.correlation
    assert content["baseline_miou"] == study.baseline
    page = paths[1].read_text(encoding="utf-8")
    assert study.summary() in page
    assert page.count("\n| ") == CHANNELS + 1
    assert min(Image.open(paths[2]).size) > 300


def test_page_of_many_channels_shows_both_ends(cfg, tower, town, ranking):
    study = study_single_channels(cfg, tower, ranking, town)
    long = type(study)(**{**vars(study), "drop": np.linspace(1, -1, 50), "score": np.zeros(50)})
    shown = [int(row.split("|")[1]) for row in long.table().splitlines()[2:]]
    assert shown == [*range(10), *range(40, 50)]
    assert "score and drop: undefined." in long.summary()


@pytest.mark.parametrize("images", [0, -3])
def test_no_image_is_refused(cfg, tower, town, ranking, images):
    with pytest.raises(ConfigError, match=f"at least one image, got {images}"):
        study_single_channels(cfg, tower, ranking, town, images=images)


def test_set_without_labels_is_refused(cfg, tower, town, ranking):
    with pytest.raises(DataError, match="town_bare has no labels"):
        study_single_channels(cfg, tower, ranking, town.replace(":train", ":bare"))


# ---------------------------------------------------------------------- Spearman


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([1, 8, 27, 64], 1),
        ([4, 3, 2, -9], -1),
        ([2, 1, 4, 3], 0.6),
        ([1, 1, 2, 2], 2 / np.sqrt(5)),  # ranks 1.5, 1.5, 3.5, 3.5
    ],
)
def test_rank_correlation_is_that_counted_by_hand(second, expected):
    assert spearman(np.array([1.0, 2, 3, 4]), np.array(second, float)) == pytest.approx(expected)


def test_rank_correlation_with_a_constant_is_undefined():
    assert spearman(np.array([1.0, 2, 3]), np.zeros(3)) is None
