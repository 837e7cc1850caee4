"""GSNet's Table 2 on miniature data sets: from a released checkpoint to figures beside the paper's."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from ovrs.errors import ConfigError
from ovrs.evaluation import ResultStore
from ovrs.reproduction import FORMATS, render, reproduce, run_table
from ovrs.zoo import fetch

SETS = {
    "FLAIR": "gsnet_flair_12_test",
    "FAST": "gsnet_fast_37_val",
    "Potsdam": "gsnet_potsdam_5_all",
    "FloodNet": "gsnet_floodnet_10_val_test",
}
WHERE = ("gsnet", "table2")


def cells(row: str, overrides: list[str]) -> dict:
    (line,) = reproduce(*WHERE, row, overrides=overrides).lines
    return {cell.column.key: cell for cell in line.cells}


@pytest.fixture
def measured(tiny, release, add_sets) -> list[str]:
    """All four sets evaluated; returns the overrides."""
    release("gsnet-vitb16", tiny)
    add_sets(*SETS.values())
    assert run_table(*WHERE, "gsnet", overrides=tiny) == 4
    return tiny


def test_every_cell_has_both_figures_and_their_difference(measured):
    found = cells("gsnet", measured)
    for cell in found.values():
        assert 0 <= cell.measured <= 100
        assert cell.difference == cell.measured - cell.published
        assert (cell.reason, cell.differences) == ("", ())
    assert found["mean"].published == 31.25
    assert found["mean"].measured == pytest.approx(sum(found[key].measured for key in SETS) / 4)


def test_nothing_is_measured_twice(measured):
    assert run_table(*WHERE, "gsnet", overrides=measured) == 0
    assert len(list(ResultStore().results())) == 4


def test_run_goes_on_where_it_stopped(tiny, release, add_sets):
    release("gsnet-vitb16", tiny)
    add_sets(SETS["FLAIR"], SETS["Potsdam"])
    assert run_table(*WHERE, "gsnet", overrides=tiny) == 2
    found = cells("gsnet", tiny)
    assert found["FAST"].measured is None
    assert "data set gsnet_fast_37_val is absent" in found["FAST"].reason
    assert found["mean"].measured is None
    assert found["mean"].reason == "the mean of 4 sets lacks FAST, FloodNet"
    add_sets(SETS["FAST"])
    assert run_table(*WHERE, "gsnet", overrides=tiny) == 1
    assert cells("gsnet", tiny)["mean"].reason == "the mean of 4 sets lacks FloodNet"


def test_reasons_of_empty_cells(tiny, workplace, add_sets, release):
    assert "not in this project" in cells("scan", tiny)["FLAIR"].reason
    assert cells("gsnet", tiny)["FLAIR"].reason == "checkpoint gsnet-vitb16 is absent: ovrs models fetch gsnet-vitb16"
    assert "no weights are released" in cells("cat_seg", tiny)["mean"].reason
    release("gsnet-vitb16", tiny)
    assert "data set gsnet_flair_12_test is absent" in cells("gsnet", tiny)["FLAIR"].reason
    add_sets(SETS["FLAIR"])
    assert cells("gsnet", tiny)["FLAIR"].reason == "not measured yet: --run does it"


def test_record_under_another_protocol_is_shown_with_the_difference_in_words(measured):
    other = [*measured, "TEST.MIOU_RULE", "union"]
    cell = cells("gsnet", other)["FLAIR"]
    assert cell.differences == ("measured under another protocol: TEST.MIOU_RULE is present, not union",)
    assert cell.measured == cells("gsnet", measured)["FLAIR"].measured


def test_records_stay_readable_when_the_data_are_gone(measured, workplace, monkeypatch):
    before = cells("gsnet", measured)["FLAIR"].measured
    monkeypatch.setenv("DETECTRON2_DATASETS", str(workplace / "nowhere"))
    cell = cells("gsnet", measured)["FLAIR"]
    assert cell.measured == before
    assert "not here any more" in cell.differences[0]


def test_other_weights_have_their_own_records(measured, release):
    before = cells("gsnet", measured)["FLAIR"].measured
    release("gsnet-vitb16", measured, seed=4)
    assert cells("gsnet", measured)["FLAIR"].reason == "not measured yet: --run does it"
    release("gsnet-vitb16", measured)
    assert cells("gsnet", measured)["FLAIR"].measured == before


def test_sums_of_fetched_weights_find_records_without_the_file(measured):
    path = fetch("gsnet-vitb16")
    before = cells("gsnet", measured)["FLAIR"].measured
    path.unlink()
    assert cells("gsnet", measured)["FLAIR"].measured == before


@pytest.mark.parametrize("form", FORMATS)
def test_whole_table_in_every_format(measured, form):
    found = reproduce(*WHERE, overrides=measured)
    text = render(found, form)
    (line,) = [line for line in found.lines if line.row.key == "gsnet"]
    mean = line.cells[-1]
    if form == "json":
        (row,) = [row for row in json.loads(text)["rows"] if row["row"] == "gsnet"]
        assert [cell["published"] for cell in row["cells"]] == [20.0, 16.61, 45.75, 42.63, 31.25]
        assert row["cells"][-1]["measured"] == mean.measured
    elif form == "csv":
        rows = [row for row in csv.DictReader(io.StringIO(text)) if row["row"] == "gsnet"]
        assert [row["column"] for row in rows] == [*SETS, "mean"]
        assert float(rows[-1]["difference"]) == pytest.approx(mean.measured - 31.25)
    else:
        assert f"{mean.measured:.2f}" in text
        assert f"{mean.difference:+.2f}" in text
        assert "31.25" in text
        assert "[1]" in text
        assert text.startswith("## " if form == "markdown" else "Towards Open-Vocabulary")


def test_unknown_table_names_what_there_is(tiny):
    with pytest.raises(ConfigError, match=r"table table9 does not exist.*table2"):
        reproduce("gsnet", "table9")


def test_nothing_is_not_a_number(measured):
    values = [cell.measured for line in reproduce(*WHERE, overrides=measured).lines for cell in line.cells]
    assert not any(math.isnan(value) for value in values if value is not None)
