"""Segmentation without the channels that a pilot study found to help most, or least."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from ranking.colour_model import CHANNELS

from ovrs.ranking import rank_channels, study_dropped_channels, study_single_channels, verify_ranking
from ovrs.ranking.pilot import PilotStudy


@pytest.fixture
def study(cfg, tower, town):
    return study_single_channels(cfg, tower, rank_channels(cfg, town, tower=tower), town)


def test_the_channels_that_help_most_are_missed_and_those_that_help_least_are_not(cfg, tower, study):
    dropped = study_dropped_channels(cfg, tower, study, share=0.3)
    everything, without_top, without_last = dropped.miou.values()
    assert everything == study.baseline
    assert without_top < everything - 20
    assert without_last >= everything


def test_dropping_by_an_order_is_keeping_the_rest_of_it(cfg, tower, town, study):
    ranking = rank_channels(cfg, town, tower=tower)
    score = np.empty(CHANNELS)
    score[ranking.order] = np.arange(CHANNELS)[::-1]
    by_ranking = PilotStudy(**{**vars(study), "drop": score})
    dropped = study_dropped_channels(cfg, tower, by_ranking, share=0.4)
    curves = verify_ranking(cfg, tower, ranking, [town], ratios=[0.6])
    assert list(dropped.miou.values())[1:] == [curves.bottom["town_train"][0], curves.top["town_train"][0]]


def test_maps_are_drawn_beside_image_and_truth(cfg, tower, study, maps, tmp_path):
    dropped = study_dropped_channels(cfg, tower, study, shown=2)
    assert [name for name, _ in dropped.maps] == ["000", "001"]
    for (_, panels), labels in zip(dropped.maps, maps, strict=False):
        assert list(panels) == [
            "image",
            "truth",
            "all channels",
            "without the top 20%",
            "without the last 20%",
        ]
        assert {picture.shape for picture in panels.values()} == {(*labels.shape, 3)}
    titles = [axes.get_title() for axes in dropped.figure().axes]
    assert titles[:2] == ["image", "truth"]
    assert titles[2] == f"all channels\n{dropped.miou['all channels']:.2f}"
    assert set(titles[5:]) == {""}
    paths = dropped.write(tmp_path / "dropped")
    assert json.loads(paths[0].read_text())["miou"] == dropped.miou
    assert dropped.table() in paths[1].read_text()
    assert min(Image.open(paths[2]).size) > 300


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_a_share_of_no_channel_or_all_is_refused(cfg, tower, study, share):
    with pytest.raises(ValueError, match=f"a share of {share} drops"):
        study_dropped_channels(cfg, tower, study, share=share)
