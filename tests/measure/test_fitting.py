"""Which shipped configurations a file fits; full-size models without memory."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from golden import fill

from ovrs.measure import fitting
from ovrs.zoo import LAYOUTS, shapes_of


def original(layout: str, name: str) -> SimpleNamespace:
    path = Path(fill.__file__).with_name(f"{name}_manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    official = {tensor: torch.empty(shape, device="meta") for tensor, shape in manifest.items()}
    return SimpleNamespace(tensors=shapes_of(LAYOUTS[layout].to_ours(official)), frozen={})


@pytest.mark.parametrize(
    ("layout", "name", "fits", "near"),
    [
        ("GSNet", "gsnet_vitb16", "gsnet/vitb16_landdiscover50k", "papers/gsnet:table3/e"),
        ("CAT-Seg", "cat_seg_vitb16", "cat_seg/vitb16_landdiscover50k", "gsnet/vitb16_landdiscover50k"),
        ("RSKT-Seg", "rskt_seg_vitb16", "rskt_seg/vitb16_dlrsd", "papers/rskt_seg:released/vitb16_dlrsd"),
    ],
)
def test_recordings_of_the_originals_fit_their_configurations_alone(layout, name, fits, near):
    (best, exact), (other, different) = fitting.fitting_configs(original(layout, name), [near, fits])
    assert (best, exact.exact) == (fits, True)
    assert (other, different.exact) == (near, False)


def test_without_names_all_with_the_same_towers_are_compared(monkeypatch):
    names = ["gsnet/vitb16_landdiscover50k", "gsnet/vitl14_336_landdiscover50k", "papers/gsnet:table3/e"]
    monkeypatch.setattr(fitting, "all_configs", lambda: iter(names))
    fits = fitting.fitting_configs(original("GSNet", "gsnet_vitb16"))
    assert [(name, fit.exact) for name, fit in fits] == [(names[0], True), (names[2], False)]


def test_all_configurations_are_recipes_and_rows():
    names = list(fitting.all_configs())
    assert {"gsnet/vitb16_landdiscover50k", "papers/dr_seg:table6/k_20", "demo/gsnet"} <= set(names)
    assert not any("Base-" in name for name in names)
    assert "papers/dr_seg:table1/dlrsd_vitb_scan" not in names
