"""tools/rank_channels.py on drawn scenes, as its users call it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ovrs.heads.dr_seg.ranking_file import ChannelRanking

CHANNELS = 16  # of the tiny tower


@pytest.fixture
def config(tiny_cfg, tmp_path) -> Path:
    path = tmp_path / "a config.yaml"
    path.write_text(tiny_cfg.dump(), encoding="utf-8")
    return path


@pytest.fixture
def rank(run_tool, config, scenes, tmp_path):
    """Run the tool on the training scenes; more arguments may follow."""
    output = tmp_path / "new folder" / "scenes.npz"

    def run(*arguments: object, dataset: str = f"{scenes / 'scenes.yaml'}:train") -> tuple[str, Path]:
        ranking = ("--dataset", dataset) if dataset else ()
        return run_tool("rank_channels", "--config-file", config, "--output", output, *ranking, *arguments), output

    return run


@pytest.fixture
def refused(rank, capsys):
    """Run the tool with a mistake and return the message that it ends in."""

    def run(*arguments: object, **options: str) -> str:
        with pytest.raises(SystemExit) as caught:
            rank(*arguments, **options)
        return caught.value.code if isinstance(caught.value.code, str) else capsys.readouterr().err

    return run


def test_help_shows_examples(run_tool, capsys):
    with pytest.raises(SystemExit) as caught:
        run_tool("rank_channels", "--help")
    assert caught.value.code == 0
    assert "python tools/rank_channels.py --config-file" in capsys.readouterr().out


def test_ranking_is_written_and_described(rank):
    output, path = rank()
    ranking = ChannelRanking.load(path, CHANNELS)
    assert list(path.parent.iterdir()) == [path]
    assert ranking.meta["dataset"] == "scenes_train"
    assert ranking.meta["images"] == 4
    assert ranking.meta["lambda"] == 0.3
    assert ranking.counts.sum() > 0
    assert "16 channels of tiny_clip.json, ranked on 4 images of scenes_train" in output
    assert "Classes left out" in output
    assert str(path) in output


def test_same_command_gives_the_same_file(rank):
    _, path = rank()
    first = path.read_bytes()
    rank()
    assert path.read_bytes() == first


def test_ranking_goes_where_the_configuration_looks_for_it(run_tool, config, scenes, tmp_path):
    place = tmp_path / "wanted.npz"
    dataset = f"{scenes / 'scenes.yaml'}:train"
    run_tool("rank_channels", "--config-file", config, "--dataset", dataset, "MODEL.DR_SEG.SPSD.FILE", place)
    assert len(ChannelRanking.load(place).order) == CHANNELS


def test_options_go_before_the_configuration(rank):
    options = (
        "--lambda",
        0.8,
        "--n-p",
        2,
        "--seed",
        4,
        "--purity",
        0.4,
        "--weighting",
        "pairs",
        "--labelling",
        "centre",
    )
    keys = ("MODEL.DR_SEG.SPSD.LAMBDA", 0.1, "MODEL.DR_SEG.SPSD.PURITY", 0.9)
    meta = ChannelRanking.load(rank(*options, *keys)[1]).meta
    found = {key: meta[key] for key in ("lambda", "n_p", "seed", "purity", "weighting", "labelling")}
    expected = {"lambda": 0.8, "n_p": 2, "seed": 4, "purity": 0.4, "weighting": "pairs", "labelling": "centre"}
    assert found == expected
    assert ChannelRanking.load(rank(*keys)[1]).meta["lambda"] == 0.1


def test_experiments_follow_the_ranking(rank, scenes):
    val = f"{scenes / 'scenes.yaml'}:val"
    output, path = rank("--verify", val, f"{scenes / 'scenes_renamed.yaml'}:val", "--pilot", val, "--pilot-images", 2)
    curves = json.loads((path.parent / "scenes_verify.json").read_text(encoding="utf-8"))
    pilot = json.loads((path.parent / "scenes_pilot.json").read_text(encoding="utf-8"))
    assert len(curves["datasets"]) == 2
    assert curves["mean"]["top"][-1] == curves["mean"]["bottom"][-1]
    assert (pilot["images"], len(pilot["drop"])) == (2, CHANNELS)
    names = {f"scenes_{study}.{ending}" for study in ("verify", "pilot", "dropped") for ending in ("json", "md", "png")}
    assert {file.name for file in path.parent.iterdir()} == {"scenes.npz", *names}
    assert "| 100%   |" in output
    assert "Spearman correlation" in output


def test_existing_file_is_read_ranked_anew_and_left_as_it_is(rank, scenes):
    _, path = rank()
    before = path.read_bytes()
    val = f"{scenes / 'scenes.yaml'}:val"
    output, _ = rank("--lambda", 1, "--pilot", val, "--pilot-images", 1, dataset="")
    pilot = json.loads((path.parent / "scenes_pilot.json").read_text(encoding="utf-8"))
    ranking = ChannelRanking.load(path)
    np.testing.assert_allclose(pilot["score"], 1 - ranking.rank_h)
    assert pilot["protocol"]["ranking"]["lambda"] == 1
    assert "lambda 1.0" in output
    assert path.read_bytes() == before


def test_ranking_of_other_weights_is_warned_of(rank, scenes, capsys):
    rank()
    arguments = ("--pilot", f"{scenes / 'scenes.yaml'}:val", "--pilot-images", 1)
    assert "other weights" not in rank(*arguments, dataset="")[0]
    assert "made with other weights" in rank(*arguments, "SEED", 5, dataset="")[0]


def test_ranking_of_another_width_ends_in_a_message(rank, refused, tiny_arch, scenes):
    rank()
    tiny_arch.write_text(json.dumps({**json.loads(tiny_arch.read_text()), "embed_dim": 24}), encoding="utf-8")
    message = refused("--verify", f"{scenes / 'scenes.yaml'}:val", dataset="")
    assert message.startswith("rank_channels.py: channel ranking ")
    assert "is of 16 channels (tiny_clip.json)" in message


def test_missing_file_ends_in_a_message(refused, scenes):
    message = refused("--verify", f"{scenes / 'scenes.yaml'}:val", dataset="")
    assert "scenes.npz does not exist" in message


def test_images_without_labels_end_in_a_message(refused, scenes, tmp_path):
    card = yaml.safe_load((scenes / "scenes.yaml").read_text(encoding="utf-8"))
    card |= {"name": "bare", "splits": {"all": {"images": str(scenes / "images" / "val"), "labels": None}}}
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(card), encoding="utf-8")
    assert "data set bare_all has no labels" in refused(dataset=str(path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lambda", 2), r"LAMBDA) must be in 0..1, got 2.0"),
        (("--purity", 3), "PURITY) must be in 0..1, got 3.0"),
        (("--weighting", "even"), "invalid choice: 'even'"),
        (("--output", "ranking.txt"), "'ranking.txt' (--output, or MODEL.DR_SEG.SPSD.FILE), must end in .npz"),
        (("MODEL.DR_SEG.SPSD.LAMDA", 1), "unknown key MODEL.DR_SEG.SPSD.LAMDA"),
    ],
)
def test_mistake_on_the_command_line_ends_in_a_message(refused, arguments, message):
    assert message in refused(*arguments)


def test_command_without_work_ends_in_a_message(refused, scenes):
    assert "nothing to do: give --dataset" in refused(dataset="")
    unused = ("--n-p", 3, "--verify", f"{scenes / 'scenes.yaml'}:val")
    assert "need --dataset: an existing file is not made again" in refused(*unused, dataset="")
