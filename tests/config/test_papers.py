from __future__ import annotations

import ast
import operator

import pytest

from ovrs.config import ConfigError, list_papers, load_config, load_paper
from ovrs.data import built_in_cards

PAPERS = [load_paper(name) for name in list_papers()]
TABLES = [
    pytest.param(paper, table, id=f"{paper.key}:{table.key}") for paper in PAPERS for table in paper.tables.values()
]
ROUNDING = 0.00501  # figures are printed with two decimals


def test_every_paper_of_a_head_is_there():
    assert list_papers() == ["cat_seg", "dr_seg", "gsnet", "hg_rsovsseg", "rskt_seg", "segearth_ov3", "training_free"]


@pytest.mark.parametrize(("paper", "table"), TABLES)
def test_printed_means_are_those_of_their_cells_or_say_what_is(paper, table):
    for row in table.rows.values():
        for column in table.mean_of:
            cells = table.cells_of_mean(row, column)
            if not cells or column not in row.figures:
                continue
            mean = sum(row.figures[cell] for cell in cells) / len(cells)
            if column in row.mean_of_cells:
                assert mean == pytest.approx(row.mean_of_cells[column], abs=0.0006)
            else:
                assert mean == pytest.approx(row.figures[column], abs=ROUNDING), f"{row.key}, {column}"


@pytest.mark.parametrize(("paper", "table"), TABLES)
def test_numbers_of_the_text_follow_from_the_tables(paper, table):
    operations = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

    def value(node):
        if isinstance(node, ast.BinOp):
            return operations[type(node.op)](value(node.left), value(node.right))
        return node.value

    for number in table.in_text:
        if "check" in number:
            tolerance = ROUNDING if "." in str(number["value"]) else 0.7
            tolerance = 0.1 if "about" in number["what"] else tolerance
            assert value(ast.parse(number["check"], mode="eval").body) == pytest.approx(number["value"], abs=tolerance)


@pytest.mark.parametrize(("paper", "table"), TABLES)
def test_columns_name_registered_sets_and_units(paper, table):
    known = {f"{card.name}_{split}" for card in built_in_cards() for split in card.splits}
    for column in table.columns:
        assert not column.registered or column.registered in known, column
        assert column.dataset in {"", "mean", *paper.datasets}
        assert column.unit or column.dataset == ""
    for entry in paper.training_sets.values():
        assert entry["ovrs"] in known


@pytest.mark.parametrize(("paper", "table"), TABLES)
def test_rows_of_heads_that_exist_can_be_run(paper, table):
    """Quoted rows are of other models, but for those whose data or weights are not to be had."""
    ours = {"CAT-Seg", "GSNet", "RSKT-Seg", "DR-Seg", "HG-RSOVSSeg"}
    quoted = {row.key for row in table.rows.values() if row.method in ours and row.config is None}
    allowed = {
        ("hg_rsovsseg", "figure9"): {"hg_minus_segearth_ov"},  # a difference
        ("rskt_seg", "readme_cost"): {"cat_seg", "rskt_seg"},  # sizes are not said
        ("cat_seg", "readme_models"): {"cat_seg_b", "cat_seg_l"},  # natural images
    }
    assert quoted == allowed.get((paper.key, table.key), set())


def test_figures_are_read_as_they_are_printed():
    table, row = load_paper("dr_seg").row("table1", "dlrsd_vitl_dr_seg")
    assert row.figures["mean/mIoU"] == 49.01
    assert row.in_domain == "DLRSD"
    column = next(column for column in table.columns if column.key == "Potsdam/mACC")
    assert (column.dataset, column.metric, column.unit) == ("Potsdam", "mACC", "percent")
    assert column.registered == "rskt_potsdam_6_all"
    cost = {column.key: column for column in load_paper("gsnet").tables["table5"].columns}
    assert (cost["flops_G"].dataset, cost["flops_G"].metric, cost["flops_G"].unit) == ("", "flops_G", "GFLOP")


def test_mean_leaves_the_training_set_out_where_the_paper_does():
    table, row = load_paper("hg_rsovsseg").row("table6", "openearthmap")
    assert "OpenEarthMap" in row.figures
    assert "OpenEarthMap" not in table.cells_of_mean(row, "mean")
    assert len(table.cells_of_mean(row, "mean")) == 6
    table, row = load_paper("dr_seg").row("table1", "dlrsd_vitl_dr_seg")
    assert "DLRSD/mIoU" in table.cells_of_mean(row, "mean/mIoU")


# ---------------------------------------------------------------------- files of one's own


@pytest.fixture
def sweep(tmp_path):
    """Write a file of tables and return its path."""

    def write(text: str):
        path = tmp_path / "my sweep.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


SWEEP = """
_BASE_: demo/gsnet
tables:
  rates:
    title: Learning rates
    config: {SOLVER: {MAX_ITER: 5, WARMUP_ITERS: 1}}
    rows:
      slow: {config: {SOLVER.BASE_LR: 1e-4}}
      fast: {config: {SOLVER: {BASE_LR: 4e-4, MAX_ITER: 9}}}
      faster: {_BASE_: ":rates/fast", config: {SOLVER.BASE_LR: 1e-3}}
      other: {_BASE_: demo/cat_seg, config: {}}
      quoted: {label: another model}
"""


def test_rows_differ_from_their_base_by_table_and_row(sweep):
    file = sweep(SWEEP)
    expected = load_config("demo/gsnet")
    expected.SOLVER.MAX_ITER, expected.SOLVER.WARMUP_ITERS, expected.SOLVER.BASE_LR = 5, 1, 1e-4
    expected.OUTPUT_DIR = "output/my sweep/rates/slow"
    assert load_config(f"{file}:rates/slow") == expected
    solver = load_config(f"{file}:rates/fast").SOLVER
    assert (solver.MAX_ITER, solver.BASE_LR) == (9, 4e-4)


def test_row_may_start_from_another_row_or_file(sweep):
    file = sweep(SWEEP)
    solver = load_config(f"{file}:rates/faster").SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER) == (1e-3, 5)  # the table's differences come after the base
    assert load_config(f"{file}:rates/other").MODEL.SEM_SEG_HEAD.NAME == "CATSegHead"


def test_label_of_a_row_is_its_key_unless_given(sweep):
    rows = load_paper(sweep(SWEEP)).tables["rates"].rows
    assert [row.label for row in rows.values()] == ["slow", "fast", "faster", "other", "another model"]
    assert load_paper(sweep(SWEEP)).tables["rates"].kind == "own"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":rates/slw", r"rates: row slw does not exist; the nearest is slow\. There are slow, fast, faster"),
        (":rate/slow", r"table rate does not exist; the nearest is rates"),
        (":rates", r"rates: row is not named\. There are slow"),
        ("", r"table is not named\. There are rates"),
        (":rates/quoted", r"another model cannot be run here; its figures are quoted from the paper"),
    ],
)
def test_row_that_cannot_be_loaded_says_what_can(sweep, name, message):
    with pytest.raises(ConfigError, match=message):
        load_config(f"{sweep(SWEEP)}{name}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tables: {a: {rows: {}}}", r"a: title must be given"),
        (
            "tables: {a: {title: x, rows: {r: {confg: {}}}}}",
            r"a/r: unknown key confg\. The nearest .* is config",
        ),
        ("tables: {a: {title: x, rows: {r: {config: {}}}}}", r"a/r: no configuration to start from; write _BASE_"),
        ("tables: {a: {title: x, columns: [b], rows: {r: {figures: {c: 1}}}}}", r"has no column c; its columns are b"),
        ("tables: [a]", r"tables: expected 'KEY: value' pairs, found a list"),
        ("tables: {a: {title: x, rows: {r: 3}}}", r"a/r: expected 'KEY: value' pairs, found a int"),
    ],
)
def test_file_of_another_form_says_where(sweep, text, message):
    with pytest.raises(ConfigError, match=message):
        load_paper(sweep(text))


def test_rows_that_lead_back_to_themselves_are_refused(sweep):
    rows = '{a: {_BASE_: ":t/b", config: {}}, b: {_BASE_: ":t/a", config: {}}}'
    with pytest.raises(ConfigError, match="leads back to"):
        load_config(f"{sweep(f'tables: {{t: {{title: x, rows: {rows}}}}}')}:t/a")


def test_unknown_key_of_a_row_names_the_row(sweep):
    file = sweep("_BASE_: demo/gsnet\ntables: {t: {title: x, rows: {a: {config: {SOLVER.LR: 1}}}}}")
    with pytest.raises(ConfigError) as error:
        load_config(f"{file}:t/a")
    assert str(error.value) == f"{file}:t/a: unknown key SOLVER.LR. The nearest valid key is SOLVER.BASE_LR."
