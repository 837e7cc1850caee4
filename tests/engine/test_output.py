"""What a run may write where: nothing before every check has passed, and never over another run."""

import json
import logging

import pytest
import yaml

from ovrs.engine.checkpoint import POINTER
from ovrs.engine.output import begin_output, check_output, differences, keep_log
from ovrs.errors import ConfigError
from ovrs.zoo.state_dict import sha256_of_file


@pytest.fixture
def folder(tiny_cfg, tmp_path):
    return tmp_path / "output"


@pytest.fixture
def used(tiny_cfg, folder):
    """The folder of a finished run of ``tiny_cfg``."""
    begin_output(tiny_cfg)
    for name in ("model_0000001.pth", "model_final.pth", "metrics.json"):
        (folder / name).write_text(name)
    (folder / POINTER).write_text("model_final.pth")
    (folder / "evaluation_0000002").mkdir()
    (folder / "evaluation_0000002" / "report.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    return folder


def report_on(folder, weights) -> None:
    entry = {"protocol": {"weights": {"sha256": sha256_of_file(weights)}}}
    (folder / "report.json").write_text(json.dumps({"datasets": {"a set": entry}}))


def test_a_new_folder_takes_any_run(tiny_cfg, folder):
    check_output(tiny_cfg)
    assert not folder.exists()
    begin_output(tiny_cfg)
    assert yaml.safe_load((folder / "config.yaml").read_text())["SEED"] == 0
    check_output(tiny_cfg)  # a run that did not come as far as a checkpoint has nothing to lose


def test_a_file_in_the_place_of_the_folder_is_an_error(tiny_cfg, folder):
    folder.write_text("")
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR is .* which is a file"):
        check_output(tiny_cfg)


def test_training_anew_in_the_folder_of_a_run_is_refused(tiny_cfg, used):
    with pytest.raises(ConfigError, match=r"holds a run already \(model_0000001\.pth, model_final\.pth\).*--overwrite"):
        check_output(tiny_cfg)


def test_overwriting_removes_what_the_run_left_and_nothing_else(tiny_cfg, used):
    check_output(tiny_cfg, overwrite=True)
    assert (used / "model_final.pth").exists()
    tiny_cfg.SEED = 7
    begin_output(tiny_cfg, overwrite=True)
    names = {path.relative_to(used).as_posix() for path in used.rglob("*") if path.is_file()}
    assert names == {"config.yaml", "log.txt", "notes.txt"}
    assert yaml.safe_load((used / "config.yaml").read_text())["SEED"] == 7


def test_overwriting_what_is_to_be_resumed_is_a_contradiction(tiny_cfg, used):
    with pytest.raises(ConfigError, match="give one of them"):
        check_output(tiny_cfg, overwrite=True, resume=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("SOLVER.BASE_LR", 0.5), ("SOLVER.IMS_PER_BATCH", 1), ("SEED", 3), ("DATASETS.TRAIN", ("other",))],
)
def test_a_continuation_that_is_none_lists_what_differs(tiny_cfg, used, key, value):
    check_output(tiny_cfg, resume=True)
    tiny_cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=rf"not exact: {key}: .* → .*--resume-changed"):
        check_output(tiny_cfg, resume=True)
    check_output(tiny_cfg, resume=True, resume_changed=True)


def test_a_continuation_may_change_what_no_iteration_depends_on(tiny_cfg, used):
    tiny_cfg.merge_from_list(
        ["DATALOADER.NUM_WORKERS", 3, "TEST.EVAL_PERIOD", 5, "DATASETS.TEST", ("x",), "SOLVER.CHECKPOINT_PERIOD", 9]
    )
    check_output(tiny_cfg, resume=True)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_later_end_is_another_run_unless_the_rate_is_constant(tiny_cfg, folder, schedule):
    tiny_cfg.SOLVER.LR_SCHEDULER_NAME = schedule
    begin_output(tiny_cfg)
    (folder / POINTER).write_text("model_0000001.pth")
    (folder / "model_0000001.pth").touch()
    tiny_cfg.SOLVER.MAX_ITER += 1
    if schedule == "constant":
        check_output(tiny_cfg, resume=True)
    else:
        with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITER: 4 → 5"):
            check_output(tiny_cfg, resume=True)


def test_nothing_to_resume_is_no_mistake(tiny_cfg):
    check_output(tiny_cfg, resume=True)


def test_an_evaluation_beside_a_trained_model_leaves_its_configuration(tiny_cfg, used):
    before = (used / "config.yaml").read_bytes()
    tiny_cfg.TEST.MIOU_RULE = "union"
    check_output(tiny_cfg, evaluate=True)
    begin_output(tiny_cfg, evaluate=True)
    assert (used / "config.yaml").read_bytes() == before
    assert (used / "model_final.pth").exists()


def test_a_report_is_not_replaced_by_one_of_other_settings_or_weights(tiny_cfg, used):
    weights = used / "model_final.pth"
    report_on(used, weights)
    tiny_cfg.MODEL.WEIGHTS, tiny_cfg.SOLVER.MAX_ITER = str(weights), 1
    check_output(tiny_cfg, evaluate=True)
    tiny_cfg.MODEL.WEIGHTS = str(used / "model_0000001.pth")
    with pytest.raises(ConfigError, match=r"a report on other weights than .*model_0000001\.pth"):
        check_output(tiny_cfg, evaluate=True)
    tiny_cfg.MODEL.WEIGHTS, tiny_cfg.TEST.MIOU_RULE = str(weights), "union"
    with pytest.raises(ConfigError, match=r"other settings \(TEST\.MIOU_RULE: present → union\)"):
        check_output(tiny_cfg, evaluate=True)
    check_output(tiny_cfg, evaluate=True, overwrite=True)


def test_keys_that_an_older_configuration_lacks_had_their_default(tiny_cfg):
    old = yaml.safe_load(tiny_cfg.dump())
    del old["TEST"]["CROP_PADDING"]
    old["GONE"] = 1
    assert differences(old, tiny_cfg, ()) == ["GONE: 1 → not there"]
    assert differences(old, tiny_cfg, ("GONE",)) == []
    tiny_cfg.TEST.CROP_PADDING = False
    assert differences(old, tiny_cfg, ("GONE",)) == ["TEST.CROP_PADDING: True → False"]


def test_the_log_holds_what_was_said_before_it_was_opened_and_the_machine_without_alarm(tiny_cfg, folder):
    logger = logging.getLogger("ovrs")
    logger.setLevel(logging.INFO)
    keep_log()
    logger.info("said early")
    begin_output(tiny_cfg)
    logger.info("said late")
    text = (folder / "log.txt").read_text()
    assert text.index("said early") < text.index("Machine:") < text.index("said late")
    assert "Python" in text
    assert "not built correctly" not in text
