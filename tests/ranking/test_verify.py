"""Curves over the ratio of channels, against predictions made by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovrs.data import DataError, read_pair
from ovrs.evaluation import ConfusionMatrix
from ovrs.heads.dr_seg.ranking_file import RankingError
from ovrs.ranking import RATIOS, rank_channels, verify_ranking


@pytest.fixture
def ranking(cfg, tower, town):
    return rank_channels(cfg, town, tower=tower)


def test_top_channels_beat_bottom_channels_and_both_meet_at_the_end(cfg, tower, town, ranking):
    curves = verify_ranking(cfg, tower, ranking, [town])
    top, bottom = curves.means()
    assert curves.ratios == RATIOS
    assert RATIOS[-1] == 1.0
    assert top[-1] == bottom[-1]
    assert top[2] > 85  # the three channels that see colours; what is missing are borders within a cell
    assert all(first > second for first, second in zip(top[2:-2], bottom[2:-2], strict=True))
    assert bottom[2] < 50


@pytest.mark.parametrize("crop", [True, False])
def test_curve_is_that_of_predictions_with_the_channels_cut_out(cfg, tower, town, ranking, crop):
    cfg.TEST.CROP_PADDING = crop
    cfg.INPUT.SIZE_DIVISIBILITY = 48
    found = verify_ranking(cfg, tower, ranking, [town], ratios=[0.5])
    (name,) = found.top
    words = tower.classes(MetadataCatalog.get(name).class_strings)
    for side, kept in (("top", ranking.order[:5]), ("bottom", ranking.order[5:])):
        matrix = ConfusionMatrix(3)
        for record in DatasetCatalog.get(name):
            image, labels = read_pair(record["file_name"], record["sem_seg_file_name"], MetadataCatalog.get(name).card)
            height, width = labels.shape
            padded = np.pad(image, ((0, -height % 48), (0, -width % 48), (0, 0)))
            features = tower.dense(torch.from_numpy(padded.transpose(2, 0, 1).copy()))
            cosines = F.cosine_similarity(words[:, kept, None, None], features[None, kept], dim=1)
            size = padded.shape[:2] if crop else (height, width)
            enlarged = F.interpolate(cosines[None], size=size, mode="bilinear")[0, :, :height, :width]
            matrix.update(torch.from_numpy(labels), enlarged.argmax(dim=0))
        assert getattr(found, side)[name] == pytest.approx([matrix.metrics().miou], abs=0.05)


def test_each_image_goes_through_the_tower_once(cfg, tower, town, ranking):
    before = tower.vlm.passes
    verify_ranking(cfg, tower, ranking, [town])
    assert tower.vlm.passes - before == 3


def test_several_data_sets_are_averaged(cfg, tower, town, write_town, ranking):
    other = write_town(np.arange(64 * 64).reshape(64, 64) // 1366, name="village")
    curves = verify_ranking(cfg, tower, ranking, [town, other], ratios=[0.3, 0.7])
    assert list(curves.top) == ["town_train", "village_train"]
    np.testing.assert_allclose(curves.means()[1], np.mean(list(curves.bottom.values()), axis=0))
    alone = verify_ranking(cfg, tower, ranking, [other], ratios=[0.3, 0.7])
    assert alone.top["village_train"] == curves.top["village_train"]


def test_results_are_written_as_numbers_page_and_plot(cfg, tower, town, ranking, tmp_path):
    curves = verify_ranking(cfg, tower, ranking, [town], ratios=[0.5, 1.0])
    paths = curves.write(tmp_path / "new folder" / "town_v0.1_verify")
    names = [f"town_v0.1_verify.{ending}" for ending in ("json", "md", "png")]
    assert [path.name for path in paths] == names == sorted(path.name for path in paths[0].parent.iterdir())
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    assert content["datasets"]["town_train"]["top"] == curves.top["town_train"]
    assert content["mean"]["bottom"] == curves.means()[1]
    assert content["protocol"]["vlm_sha256"] == tower.sha256
    assert content["protocol"]["ranking"] == ranking.meta
    assert f"| 50%    |       {curves.top['town_train'][0]:.2f}" in paths[1].read_text(encoding="utf-8")
    assert min(Image.open(paths[2]).size) > 300


@pytest.mark.parametrize("ratio", [0.05, 0.0, 1.2])
def test_ratio_that_keeps_no_channel_is_refused(cfg, tower, town, ranking, ratio):
    with pytest.raises(RankingError, match=rf"\b{ratio}"):
        verify_ranking(cfg, tower, ranking, [town], ratios=[0.5, ratio])


def test_set_without_labels_is_refused_before_any_is_scored(cfg, tower, town, ranking):
    before = tower.vlm.passes
    with pytest.raises(DataError, match="town_bare has no labels"):
        verify_ranking(cfg, tower, ranking, [town, town.replace(":train", ":bare")])
    assert tower.vlm.passes == before
