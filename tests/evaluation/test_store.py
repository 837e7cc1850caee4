"""The store of results: found again by what decides the figures, never averaged over different protocols."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest

from ovrs.errors import EvaluationError
from ovrs.evaluation import Result, ResultStore
from ovrs.evaluation.store import differences, in_words, mean

PROTOCOL = {
    "dataset": {"name": "town_val", "card": "town", "images": 3, "class_names": ["road", "tree"]},
    "vocabulary": {"classes": ["road", "tree"], "templates": ["{}"]},
    "scoring": {"resolution": "original"},
    "weights": {"file": "a.pth", "sha256": "0" * 64},
    "config": {"MODEL": {"GSNET": {"NUM_LAYERS": 2}}, "TEST": {"CROP_PADDING": True, "SIZES": [1, 2]}},
    "files": {},
    "environment": {"device": "cpu"},
    "date": "2026-01-01",
}
FIGURES = {"mIoU": 100 / 3, "fwIoU": 2.0, "mACC": 3.0, "aACC": 4.0}


def changed(**sections: dict) -> dict:
    """The protocol with entries of sections replaced, ``config`` by dotted keys."""
    protocol = copy.deepcopy(PROTOCOL)
    for section, values in sections.items():
        if not isinstance(values, dict):
            protocol[section] = values
            continue
        for key, value in values.items():
            node = protocol[section]
            *groups, name = key.split("__")
            for group in groups:
                node = node[group]
            node[name] = value
    return protocol


def result(protocol: dict = PROTOCOL, **figures: float) -> Result:
    classes = {"road": {"IoU": 50.0}, "tree": {"IoU": math.nan}}
    return Result(protocol["dataset"]["name"], FIGURES | figures, protocol, classes, speed=2.5)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "some results")


def test_result_comes_back_as_it_was(store):
    store.add(result())
    found = store.get(PROTOCOL)
    assert found.figures == FIGURES
    assert found.speed == 2.5
    assert found.classes["road"] == {"IoU": 50.0}
    assert math.isnan(found.classes["tree"]["IoU"])
    assert found.protocol == PROTOCOL


@pytest.mark.parametrize(
    "other",
    [
        changed(environment={"device": "cuda"}),
        changed(date="2027-01-01"),
        changed(weights={"file": "/elsewhere/b.pth"}),
    ],
    ids=["machine", "date", "place of the file"],
)
def test_circumstances_do_not_count(store, other):
    store.add(result())
    assert store.get(other) is not None
    store.add(result(other, mIoU=5.0))
    assert [each.figures["mIoU"] for each in store.results()] == [5.0]


@pytest.mark.parametrize(
    "other",
    [
        changed(weights={"sha256": "1" * 64}),
        changed(config={"TEST__CROP_PADDING": False}),
        changed(config={"MODEL__GSNET__NUM_LAYERS": 3}),
        changed(vocabulary={"classes": ["road", "trees"]}),
        changed(dataset={"images": 4}),
    ],
    ids=["weights", "protocol", "model", "words", "data"],
)
def test_whatever_decides_figures_makes_another_record(store, other):
    store.add(result())
    assert store.get(other) is None
    store.add(result(other))
    assert len(list(store.results("town_val"))) == 2


def test_records_of_one_data_set_are_found(store):
    store.add(result())
    store.add(result(changed(dataset={"name": "lake_val"})))
    assert [each.dataset for each in store.results()] == ["lake_val", "town_val"]
    assert [each.dataset for each in store.results("lake_val")] == ["lake_val"]
    assert list(store.results("nowhere")) == []


def test_file_is_plain_json_without_nan(store):
    path = store.add(result())
    content = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["classes"]["tree"] == {"IoU": None}


def test_damaged_record_is_named(store):
    path = store.add(result())
    path.write_text("{}")
    with pytest.raises(EvaluationError, match=rf"{path.name} is no stored result.*delete it"):
        list(store.results())


def test_folder_follows_the_environment(results_folder):
    assert ResultStore().folder == results_folder


def test_differences_are_named_and_put_in_words():
    other = changed(config={"TEST__CROP_PADDING": False, "TEST__SIZES": [1, 3]}, weights={"sha256": "1" * 64})
    found = differences(PROTOCOL, other)
    assert found == {
        "weights": ("0" * 64, "1" * 64),
        "TEST.CROP_PADDING": (True, False),
        "TEST.SIZES": ([1, 2], [1, 3]),
    }
    assert in_words(found) == [
        "weights is 000000000000…, not 111111111111…",
        "TEST.CROP_PADDING is True, not False",
        "TEST.SIZES is [1, 2], not [1, 3]",
    ]
    assert differences(PROTOCOL, other, leave_out=("weights", "TEST.")) == {}


def test_an_entry_that_one_protocol_lacks_is_a_difference():
    other = copy.deepcopy(PROTOCOL)
    del other["config"]["TEST"]["CROP_PADDING"]
    assert in_words(differences(PROTOCOL, other)) == ["TEST.CROP_PADDING is True, not nothing"]


def test_mean_over_data_sets_of_one_protocol():
    other = changed(dataset={"name": "lake_val", "images": 9}, vocabulary={"classes": ["water", "land"]})
    assert mean([result(mIoU=10.0), result(other, mIoU=20.0)]) == 15.0
    assert mean([result(mACC=7.0)], "mACC") == 7.0


def test_results_of_different_protocols_are_not_averaged():
    other = changed(dataset={"name": "lake_val"}, config={"TEST__CROP_PADDING": False})
    with pytest.raises(EvaluationError, match=r"town_val and lake_val .* not averaged: TEST\.CROP_PADDING is True"):
        mean([result(), result(other)])


def test_mean_of_nothing_is_refused():
    with pytest.raises(EvaluationError, match="no result to average"):
        mean([])
