"""The demonstration runs for every head: scenes, ranking where it is needed, training, scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ovrs.demo import DemoFailed, DemoScenes, report_of, train_on_scenes
from ovrs.heads.dr_seg.ranking_file import ChannelRanking

CONFIGS = Path(__file__).parents[2] / "configs" / "demo"
SHORT = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "MODEL.DEVICE", "cpu"]


@pytest.fixture(scope="module")
def few_scenes(tmp_path_factory) -> DemoScenes:
    return DemoScenes.written(tmp_path_factory.mktemp("few scenes"), train=4, val=1)


@pytest.fixture(scope="module")
def run_of(few_scenes, tmp_path_factory):
    """The run of a head, trained once for all tests."""
    runs = {}

    def trained(head: str) -> Path:
        if head not in runs:
            folder = tmp_path_factory.mktemp("runs") / head
            runs[head] = train_on_scenes(CONFIGS / f"{head}.yaml", few_scenes, folder, SHORT)
        return runs[head]

    return trained


@pytest.mark.parametrize("head", ["cat_seg", "rskt_seg", "dr_seg"])
def test_head_trains_on_the_scenes_and_is_scored_under_both_names(head, few_scenes, run_of):
    report = report_of(run_of(head))
    assert set(report) == set(few_scenes.names())
    assert all(0 <= entry["figures"]["mIoU"] <= 100 for entry in report.values())


def test_second_call_ranks_and_trains_nothing_anew(few_scenes, run_of):
    run = run_of("dr_seg")
    files = [run / name for name in ("channels.npz", "model_final.pth")]
    before = [file.stat().st_mtime_ns for file in files]
    train_on_scenes(CONFIGS / "dr_seg.yaml", few_scenes, run, SHORT)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_channel_ranking_travels_in_the_checkpoint(run_of):
    run = run_of("dr_seg")
    state = torch.load(run / "model_final.pth", weights_only=True)["model"]
    order = torch.from_numpy(ChannelRanking.load(run / "channels.npz").order)
    assert torch.equal(state["head.channels.order"], order)


def test_failing_training_is_reported(few_scenes, tmp_path):
    with pytest.raises(DemoFailed, match=r"cat_seg\.yaml"):
        train_on_scenes(CONFIGS / "cat_seg.yaml", few_scenes, tmp_path / "run", [*SHORT, "SOLVER.OPTIMIZER", "Magic"])


def test_chance_is_below_a_fair_share(few_scenes):
    assert 0 < few_scenes.chance() < 100 / 8
