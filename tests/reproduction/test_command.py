"""ovrs reproduce: papers and tables, one table, and running it."""

from __future__ import annotations

import json

import pytest

from ovrs.cli import main
from ovrs.config import list_papers, load_paper
from ovrs.reproduction.counts import COUNTS

# Counting full-size models is another test's.
TABLES = [
    (paper, key)
    for paper in list_papers()
    for key, table in load_paper(paper).tables.items()
    if not COUNTS.keys() & {column.metric for column in table.columns}
]


def run(*words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["reproduce", *words])
    return str(caught.value.code or "")


def test_papers_and_their_tables_are_listed(capsys):
    assert run() == ""
    text = capsys.readouterr().out
    assert all(f"{paper}: " in text for paper in list_papers())
    run("dr_seg")
    assert "  table6: Neighbours per node" in capsys.readouterr().out


def test_table_is_printed_without_weights_and_data(workplace, capsys):
    assert run("hg_rsovsseg", "table6") == ""
    text = capsys.readouterr().out
    assert "48.43" in text
    assert "checkpoint hg-openearthmap is absent: ovrs models fetch hg-openearthmap" in text
    assert "80.78*" in text
    assert "the mean leaves the figure out" in text


def test_run_measures_and_prints(tiny, release, add_sets, capsys):
    release("gsnet-vitb16", tiny)
    add_sets("gsnet_potsdam_5_all")
    words = ("gsnet", "table2", "--row", "gsnet", "--format", "json", *tiny)
    assert run(*words) == ""
    before = json.loads(capsys.readouterr().out)["rows"][0]["cells"][2]
    assert (before["measured"], before["reason"]) == (None, "not measured yet: --run does it")
    assert run(*words, "--run") == ""
    after = json.loads(capsys.readouterr().out)["rows"][0]["cells"][2]
    assert after["published"] == 45.75
    assert after["difference"] == pytest.approx(after["measured"] - 45.75)


def test_unknown_paper_is_one_line():
    assert "gsnot" in run("gsnot", "table1")


@pytest.mark.parametrize(("paper", "table"), TABLES)
def test_every_empty_cell_of_every_table_has_a_reason(workplace, paper, table, capsys):
    assert run(paper, table, "--format", "json") == ""
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows
    assert all(cell["reason"] for row in rows for cell in row["cells"] if cell["measured"] is None)
