"""Cells that are counted on the spot: parameters, arithmetic, similarity of class lists."""

from __future__ import annotations

import pytest

from ovrs.config import load_config, load_paper
from ovrs.measure.analysis import analyze
from ovrs.reproduction import reproduce


def cells(table: str, row: str, overrides=(), paper: str = "gsnet") -> dict:
    (line,) = reproduce(paper, table, row, overrides=overrides).lines
    return {cell.column.key: cell for cell in line.cells}


def test_published_gsnet_is_counted_at_its_real_size(workplace):
    found = cells("table5", "gsnet")
    assert found["params_M"].measured == pytest.approx(243.988242)
    assert found["trainable_M"].measured == pytest.approx(29.006865)
    assert found["flops_G"].measured == pytest.approx(2160, rel=0.005)
    assert "multiply-accumulates" in found["flops_G"].differences[0]


def test_tiny_model_is_counted_as_the_analysis_counts(tiny, workplace):
    found = cells("table5", "gsnet", tiny)
    analysis = analyze(load_config("papers/gsnet:table5/gsnet", tiny), 5, (640, 640))
    assert found["params_M"].measured == analysis.parameters["model"].total / 1e6
    assert found["flops_G"].measured == analysis.original_macs() / 1e9


def test_models_of_others_are_quoted(workplace):
    assert "not in this project" in cells("table5", "san")["params_M"].reason


def test_arithmetic_without_stated_conditions_is_not_counted(workplace, tiny, tmp_path):
    paper = tmp_path / "own.yaml"
    text = "{title: Own, tables: {t: {title: A table, kind: cost, columns: [params_M, flops_G], rows: {r: {label: R, "
    paper.write_text(text + "_BASE_: gsnet/vitb16_landdiscover50k, config: {}}}}}}", encoding="utf-8")
    found = cells("t", "r", tiny, str(paper))
    assert found["params_M"].measured > 0
    assert "under which conditions" in found["flops_G"].reason


def test_similarity_of_class_lists(tiny, workplace):
    found = {
        row: cells("table7", row, tiny)["label_set_similarity"] for row in load_paper("gsnet").tables["table7"].rows
    }
    assert [cell.published for cell in found.values()] == [0.79, 0.69, 0.69, 0.71]
    assert all(0 < cell.measured < 1 for cell in found.values())


def test_similarity_needs_the_text_tower(workplace):
    cell = cells("table7", "fast")["label_set_similarity"]
    assert cell.measured is None
    assert cell.reason == "text tower openai/ViT-B-16 is absent: ovrs models fetch openai/ViT-B-16"


def test_statements_about_data_are_not_measured(workplace):
    assert "ovrs datasets stats" in cells("table1", "potsdam")["images"].reason
