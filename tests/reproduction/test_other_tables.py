"""One table of every other paper on miniature data sets, from checkpoints as their projects write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ovrs.config import load_config, load_paper
from ovrs.engine import build_model
from ovrs.reproduction import render, reproduce, run_table


def cells(paper: str, table: str, row: str, overrides: list[str]) -> dict:
    (line,) = reproduce(paper, table, row, overrides=overrides).lines
    return {cell.column.key: cell for cell in line.cells}


def sets_of(paper: str) -> dict[str, str]:
    return {key: entry["ovrs"] for key, entry in load_paper(paper).datasets.items()}


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def test_hg_rsovssegs_matrix_leaves_the_training_set_out_of_its_means(shrink, release, add_sets):
    tiny = shrink()
    where, sets = ("hg_rsovsseg", "table6"), sets_of("hg_rsovsseg")
    release("hg-globe230k", tiny)
    release("hg-openearthmap", tiny, seed=4)
    add_sets(*sets.values())
    assert run_table(*where, overrides=tiny) == 2 * len(sets)
    for row, own in (("globe230k", "Globe230k"), ("openearthmap", "OpenEarthMap")):
        found = cells(*where, row, tiny)
        assert found[own].in_domain
        others = [found[key].measured for key in sets if key != own]
        assert found["mean"].measured == pytest.approx(mean(others))
        assert found["mean"].measured != pytest.approx(mean([*others, found[own].measured]))
    assert "no weights are released" in cells(*where, "loveda", tiny)["mean"].reason
    text = render(reproduce(*where, overrides=tiny))
    assert f"{found['OpenEarthMap'].measured:.2f}" in text
    assert text.count("measured ") == 2


def test_dr_segs_table_takes_released_and_own_weights(shrink, tiny, release, add_sets, workplace):
    where, sets = ("dr_seg", "table1"), sets_of("dr_seg")
    with_companion = shrink(prior=True, companion=True)
    release("rskt-vitb16-dlrsd", with_companion)
    cfg = load_config("papers/dr_seg:table1/dlrsd_vitb_dr_seg", tiny)
    own = Path(cfg.OUTPUT_DIR, "model_final.pth")
    own.parent.mkdir(parents=True)
    torch.save({"model": build_model(cfg).state_dict(), "iteration": 30000}, own)
    add_sets(*sets.values())
    for row, overrides in (("dlrsd_vitb_rskt_seg", with_companion), ("dlrsd_vitb_dr_seg", tiny)):
        assert run_table(*where, row, overrides=overrides) == 8
        assert run_table(*where, row, overrides=overrides) == 0
        found = cells(*where, row, overrides)
        assert found["DLRSD/mIoU"].in_domain
        for metric in ("mIoU", "mACC"):  # the training set is in the mean here
            measured = found[f"mean/{metric}"].measured
            assert measured == pytest.approx(mean(found[f"{key}/{metric}"].measured for key in sets))
            assert found[f"mean/{metric}"].difference == measured - found[f"mean/{metric}"].published
    assert found["mean/mACC"].differences == ("the printed cells average 60.429, not the printed mean",)


def test_means_whose_single_values_are_not_printed_are_measured(tiny, add_sets, workplace):
    cfg = load_config("papers/dr_seg:table6/k_75", tiny)
    own = Path(cfg.OUTPUT_DIR, "model_final.pth")
    own.parent.mkdir(parents=True)
    torch.save({"model": build_model(cfg).state_dict(), "iteration": 30000}, own)
    sets = sets_of("dr_seg")
    add_sets(*(sets[key] for key in ("Potsdam", "VDD", "UAVid")))
    assert run_table("dr_seg", "table6", "k_75", overrides=tiny) == 3
    assert cells("dr_seg", "table6", "k_75", tiny)["mean/mIoU"].reason == "the mean of 4 sets lacks UDD5"
    add_sets(sets["UDD5"])
    assert run_table("dr_seg", "table6", "k_75", overrides=tiny) == 1
    assert all(cell.measured is not None for cell in cells("dr_seg", "table6", "k_75", tiny).values())


def test_rskt_segs_released_weights_are_read_with_their_own_depth(shrink, release, add_sets):
    tiny = shrink(prior=True, companion=True)
    release("rskt-vitl14-dlrsd", tiny)
    add_sets(sets_of("rskt_seg")["VDD"])
    where = ("rskt_seg", "readme_released", "rskt_vitl_dlrsd")
    assert run_table(*where, overrides=tiny) == 1
    found = cells(*where, tiny)
    assert found["VDD/mIoU"].published == 40.55
    assert found["VDD/mACC"].measured is not None


def test_cat_segs_test_sets_are_not_registered(shrink, release, workplace):
    tiny = shrink()
    release("cat-seg-b", tiny)
    assert run_table("cat_seg", "readme_models", overrides=tiny) == 0
    found = cells("cat_seg", "readme_models", "cat_seg_b", tiny)
    assert found["A-150"].reason == "data set A-150 is not among this project's"


def test_a_head_without_the_file_that_it_needs_first_says_so(tiny, add_sets, workplace):
    overrides = [*tiny, "MODEL.DR_SEG.SPSD.SELECT", "score", "MODEL.DR_SEG.SPSD.FILE", "output/channels/gone.npz"]
    own = Path(load_config("papers/dr_seg:table6/k_75", overrides).OUTPUT_DIR, "model_final.pth")
    own.parent.mkdir(parents=True)
    own.touch()
    add_sets(sets_of("dr_seg")["VDD"])
    assert run_table("dr_seg", "table6", "k_75", overrides=overrides) == 0
    reason = cells("dr_seg", "table6", "k_75", overrides)["mean/mIoU"].reason
    assert reason.startswith("output/channels/gone.npz is absent: ")
    assert "rank_channels" in reason
