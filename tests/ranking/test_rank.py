"""From a data set to a ranking: a constructed case, its provenance, and what people are told."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from ranking.colour_model import CHANNELS, INFORMATIVE

import ovrs
from ovrs.data import DataError
from ovrs.heads.dr_seg.ranking_file import RankingError
from ovrs.ranking import RankingOptions, describe_ranking, rank_channels


@pytest.mark.parametrize("weighting", ["balanced", "pairs"])
def test_channels_that_tell_classes_apart_come_first(cfg, tower, town, weighting):
    ranking = rank_channels(cfg, town, RankingOptions(weighting=weighting), tower)
    assert set(ranking.split(0.3)[0]) == set(INFORMATIVE)
    assert len(ranking.order) == CHANNELS


def test_provenance_says_how_the_ranking_was_made(cfg, tower, town):
    options = RankingOptions(lam=0.4, n_p=3, seed=5, purity=0.6, weighting="pairs")
    cfg.MODEL.VLM.ARCH, cfg.MODEL.VLM.WEIGHTS = "/somewhere private/colours.json", "/somewhere private/colours.pt"
    meta = rank_channels(cfg, town, options, tower).meta
    expected = {
        "dataset": "town_train",
        "split": "train",
        "classes": ["red", "green", "blue"],
        "images": 3,
        "image_list_sha256": hashlib.sha256(b"000\n001\n002\n").hexdigest(),
        "vlm": "colours.json",
        "vlm_weights": "colours.pt",
        "vlm_sha256": tower.sha256,
        "input_size": 64,
        "lambda": 0.4,
        "n_p": 3,
        "seed": 5,
        "purity": 0.6,
        "weighting": "pairs",
        "labelling": "majority",
        "eps": 1e-8,
        "version": ovrs.__version__,
    }
    assert {key: meta[key] for key in expected} == expected


def test_same_command_gives_the_same_bytes(cfg, tower, town, tmp_path):
    first, second = (
        rank_channels(cfg, town, tower=tower).save(tmp_path / f"{number}.npz").read_bytes() for number in range(2)
    )
    assert first == second


def test_configuration_gives_the_options(cfg, tower, town):
    cfg.MODEL.DR_SEG.SPSD.LAMBDA = 0.9
    assert rank_channels(cfg, town, tower=tower).meta["lambda"] == 0.9


def test_images_without_labels_are_refused(cfg, tower, town):
    with pytest.raises(DataError, match="data set town_bare has no labels"):
        rank_channels(cfg, town.replace(":train", ":bare"), tower=tower)


def test_labels_of_a_single_class_are_refused(cfg, tower, write_town):
    with pytest.raises(RankingError, match="at least two classes, got 1"):
        rank_channels(cfg, write_town(np.zeros((64, 64), int)), tower=tower)


def test_page_names_what_took_no_part(cfg, tower, write_town, caplog):
    labels = np.zeros((64, 64), int)
    labels[:8, :16] = 2  # two cells of 64
    ranking = rank_channels(cfg, write_town(labels), RankingOptions(n_p=10), tower)
    page = describe_ranking(ranking)
    assert "left out, without any cell: green." in page
    assert "fewer cells than prototypes asked for: blue." in page
    assert "no class activates: none." in page
    assert "without any cell take no part in the ranking: green" in caplog.text
    assert "fewer than 10 cells, all of which are kept: blue" in caplog.text


def test_dead_channels_are_named_and_warned_of(cfg, tower, town, caplog):
    dead = next(channel for channel in range(CHANNELS) if channel not in INFORMATIVE)
    tower.vlm.background[dead] = -0.5
    ranking = rank_channels(cfg, town, tower=tower)
    assert f"no class activates: {dead}." in describe_ranking(ranking)
    assert "1 dead channels" in caplog.text
    assert ranking.rank_h[dead] == 1


def test_page_of_a_file_without_provenance_can_be_shown(cfg, tower, town):
    ranking = rank_channels(cfg, town, tower=tower)
    ranking.meta.clear()
    assert "channels of unknown, ranked on unknown images" in describe_ranking(ranking)
