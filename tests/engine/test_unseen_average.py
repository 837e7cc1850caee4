import json

import pytest

from ovrs.config import ConfigError
from ovrs.engine import build_model, evaluate


@pytest.mark.parametrize(
    ("rule", "averaged"), [("all", ["scenes_val", "scenes_renamed_val"]), ("unseen", ["scenes_renamed_val"])]
)
def test_average_leaves_the_training_set_out_where_asked(run_cfg, scenes, tmp_path, rule, averaged):
    run_cfg.DATASETS.TRAIN = (f"{scenes / 'scenes.yaml'}:train",)
    run_cfg.DATASETS.TEST = (f"{scenes / 'scenes.yaml'}:val", f"{scenes / 'scenes_renamed.yaml'}:val")
    run_cfg.TEST.AVERAGE = rule
    evaluate(run_cfg, build_model(run_cfg), tmp_path, None)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [name.split("@")[0] for name in report["average"]["datasets"]] == averaged
    assert len(report["datasets"]) == 2


def test_unknown_average_names_the_key(run_cfg, tmp_path):
    run_cfg.TEST.AVERAGE = "seen"
    with pytest.raises(ConfigError, match=r"TEST\.AVERAGE must be one of all, unseen, got 'seen'"):
        evaluate(run_cfg, build_model(run_cfg), tmp_path, None)
