import json
import shutil

import pytest
import yaml

from ovrs.config import ConfigError
from ovrs.data import DataError
from ovrs.demo import CLASSES, RENAMED_CLASSES
from ovrs.engine import CheckpointStore, build_model, check_test_sets, evaluate
from ovrs.evaluation import EvaluationError, ResultStore
from ovrs.zoo.state_dict import sha256_of_file


@pytest.fixture
def own_scenes(scenes, tmp_path):
    """A copy of the scenes that a test may damage."""
    return shutil.copytree(scenes, tmp_path / "own scenes")


def test_sets_of_one_run_are_each_scored_with_their_own_words_and_protocol(run_cfg, scenes, tmp_path):
    run_cfg.DATASETS.TEST = (f"{scenes / 'scenes.yaml'}:val", f"{scenes / 'scenes_renamed.yaml'}:train")
    model = build_model(run_cfg)
    path = CheckpointStore(tmp_path).save("model_final", {"model": model.state_dict()})
    asked = []
    vocabulary = model.vocabulary
    model.vocabulary = lambda classes: asked.append(tuple(classes)) or vocabulary(classes)
    evaluate(run_cfg, model, tmp_path / "scores", sha256_of_file(path))

    report = json.loads((tmp_path / "scores" / "report.json").read_text())
    names = list(report["datasets"])
    assert [name.split("@")[0] for name in names] == ["scenes_val", "scenes_renamed_train"]
    for name, classes, images in zip(names, (CLASSES, RENAMED_CLASSES), (3, 4), strict=True):
        protocol = report["datasets"][name]["protocol"]
        assert protocol["vocabulary"]["classes"] == list(classes)
        assert protocol["dataset"]["images"] == images
        assert protocol["weights"]["sha256"] == sha256_of_file(path)
        assert 0 <= report["datasets"][name]["figures"]["mIoU"] <= 100
        assert tuple(classes) in asked
    assert report["average"]["datasets"] == names
    assert "scenes_renamed_train" in (tmp_path / "scores" / "report.md").read_text()
    # The training set's own words are all seen; of the renamed ones only those that stayed.
    marks = [report["datasets"][name]["seen_in_training"]["classes"].values() for name in names]
    assert all(marks[0])
    assert not all(marks[1])
    stored = {name: ResultStore().get(report["datasets"][name]["protocol"]) for name in names}
    for name in names:
        assert stored[name].figures == report["datasets"][name]["figures"]


def test_a_model_in_training_leaves_no_record(run_cfg, tmp_path):
    evaluate(run_cfg, build_model(run_cfg), tmp_path / "scores", None)
    assert (tmp_path / "scores" / "report.json").is_file()
    assert list(ResultStore().results()) == []


def test_finished_sets_are_recorded_even_if_a_later_one_fails(run_cfg, own_scenes, tmp_path):
    (own_scenes / "images" / "train" / "0001.png").write_bytes(b"damaged")
    run_cfg.DATASETS.TEST = tuple(f"{own_scenes / 'scenes.yaml'}:{split}" for split in ("val", "train"))
    with pytest.raises(DataError, match=r"0001\.png"):
        evaluate(run_cfg, build_model(run_cfg), tmp_path / "scores", "0" * 64)
    assert [result.dataset.split("@")[0] for result in ResultStore().results()] == ["scenes_val"]


def test_without_test_sets_there_is_nothing_to_evaluate(run_cfg, tmp_path):
    run_cfg.DATASETS.TEST = ()
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST is empty"):
        evaluate(run_cfg, build_model(run_cfg), tmp_path, None)


def test_complete_test_sets_pass_the_check(run_cfg):
    check_test_sets(run_cfg)


@pytest.mark.parametrize("key", ["TEST", "VAL"])
def test_a_missing_label_of_a_test_set_is_found_before_training(run_cfg, own_scenes, key):
    (own_scenes / "labels" / "val" / "0001.png").unlink()
    run_cfg.DATASETS.TEST = ()
    run_cfg.DATASETS[key] = (f"{own_scenes / 'scenes.yaml'}:val",)
    with pytest.raises(DataError, match=r"image\(s\) without label: .*labels/val for the stems 0001"):
        check_test_sets(run_cfg)


def test_a_test_set_without_labels_is_found_before_training(run_cfg, own_scenes):
    card = own_scenes / "scenes.yaml"
    content = yaml.safe_load(card.read_text())
    content["splits"]["pictures"] = {"images": "images/val", "labels": None}
    card.write_text(yaml.safe_dump(content))
    run_cfg.DATASETS.TEST = (f"{card}:pictures",)
    with pytest.raises(DataError, match=r"scenes_pictures.* has no labels; DATASETS\.TEST and DATASETS\.VAL need"):
        check_test_sets(run_cfg)


def test_an_unknown_scoring_rule_is_found_before_training(run_cfg):
    run_cfg.TEST.MIOU_RULE = "all"
    with pytest.raises(EvaluationError, match="all"):
        check_test_sets(run_cfg)
