from __future__ import annotations

import re

import open_clip
import pytest
import timm
import torch

from ovrs.backbones import DinoPrior, build_vlm
from ovrs.backbones.weights import choose_activation, find_entry
from ovrs.errors import ConfigError, WeightsError
from ovrs.zoo import WeightsEntry, catalogue, list_models

TOWERS = list_models("tower")
CATALOGUE = catalogue()
QUICK = WeightsEntry("a", "tower", "here", "MIT", "a.pt", activation="quick_gelu")
EXACT = WeightsEntry("a", "tower", "here", "MIT", "a.pt", activation="gelu")
BOTH = WeightsEntry("a", "tower", "here", "MIT", "a.pt", activation="gelu", published_with="quick_gelu")


# ---------------------------------------------------------------------- catalogue


@pytest.mark.parametrize("name", TOWERS)
def test_entry_of_a_tower_is_complete(name):
    entry = CATALOGUE[name]
    assert re.fullmatch(r"[a-z0-9]+/[\w.-]+", name), "a name that cannot be mistaken for a path"
    for values in (entry.mean, entry.std):
        assert len(values) == 3
        assert all(0 < value < 1 for value in values)
    assert entry.published_with != entry.activation or entry.activation is None


@pytest.mark.parametrize("name", TOWERS)
def test_architecture_of_an_entry_exists(name):
    entry = CATALOGUE[name]
    if entry.activation is None:
        assert timm.is_model(entry.arch)
    else:
        assert entry.arch in (*open_clip.list_models(), "sam3")


@pytest.mark.parametrize("name", [name for name in TOWERS if CATALOGUE[name].timm])
def test_timms_own_record_agrees(name):
    entry = CATALOGUE[name]
    record = timm.get_pretrained_cfg(entry.arch)
    assert record.has_weights
    assert (record.mean, record.std) == (entry.mean, entry.std)


@pytest.mark.parametrize("name", [name for name in TOWERS if name.startswith("openai/")])
def test_openais_addresses_carry_the_sum(name):
    entry = CATALOGUE[name]
    assert entry.sha256 in entry.url
    assert entry.activation == "quick_gelu"
    assert entry.mean == open_clip.OPENAI_DATASET_MEAN
    assert entry.std == open_clip.OPENAI_DATASET_STD


def test_published_sum_of_vit_b_16():
    assert CATALOGUE["openai/ViT-B-16"].sha256.startswith("5806e77cd80f8b59890b7e101eabd078")


def test_entry_is_found_for_its_architecture_only():
    assert find_entry("openai/ViT-B-16", "ViT-B-16", "MODEL.VLM") == CATALOGUE["openai/ViT-B-16"]
    assert find_entry("my/file.pt", "ViT-B-16", "MODEL.VLM") is None
    assert find_entry("", "ViT-B-16", "MODEL.VLM") is None


def test_local_file_is_recognised_by_its_published_name():
    name = "georsclip/ViT-L-14"
    path = f"my weights/{CATALOGUE[name].file}"
    assert find_entry(path, "ViT-L-14", "MODEL.VLM") == CATALOGUE[name]
    assert find_entry("ViT-L-14.pt", "ViT-B-32", "MODEL.VLM") is None, "any file may be called so"
    with pytest.raises(WeightsError, match=r"RS5M_ViT-L-14\.pt' fits MODEL\.VLM\.ARCH 'ViT-L-14', but 'ViT-B-32'"):
        find_entry(path, "ViT-B-32", "MODEL.VLM")


def test_weights_of_another_architecture_are_refused_by_name():
    with pytest.raises(
        WeightsError, match=r"MODEL\.VLM\.WEIGHTS 'openai/ViT-B-16' fits MODEL\.VLM\.ARCH 'ViT-B-16', but 'ViT-L-14'"
    ):
        find_entry("openai/ViT-B-16", "ViT-L-14", "MODEL.VLM")


# ---------------------------------------------------------------------- activation


@pytest.mark.parametrize(
    ("configured", "weights", "entry", "default", "chosen"),
    [
        ("", "openai/ViT-B-16", QUICK, "gelu", "quick_gelu"),
        ("quick_gelu", "openai/ViT-B-16", QUICK, "gelu", "quick_gelu"),
        ("", "laion/ViT-B-16", EXACT, "quick_gelu", "gelu"),
        ("", "remote/ViT-B-16", BOTH, "quick_gelu", "gelu"),
        ("quick_gelu", "remote/ViT-B-16", BOTH, "gelu", "quick_gelu"),
        ("quick_gelu", "mine.pt", None, "gelu", "quick_gelu"),
        ("gelu", "mine.pt", None, "quick_gelu", "gelu"),
        ("", "", None, "gelu", "gelu"),
        ("", "", None, "quick_gelu", "quick_gelu"),
        ("gelu", "", None, "quick_gelu", "gelu"),
    ],
)
def test_catalogue_decides_then_the_configuration_then_the_architecture(configured, weights, entry, default, chosen):
    assert choose_activation(configured, weights, entry, default) == chosen


def test_activation_against_the_catalogue_is_refused():
    with pytest.raises(
        WeightsError, match=r"ACTIVATION is 'gelu', but 'openai/ViT-B-16' was trained with 'quick_gelu'"
    ):
        choose_activation("gelu", "openai/ViT-B-16", QUICK, "gelu")


def test_local_file_without_activation_is_refused(tiny_cfg, tmp_path):
    torch.save({}, tmp_path / "mine.pt")
    tiny_cfg.MODEL.VLM.WEIGHTS = str(tmp_path / "mine.pt")
    with pytest.raises(WeightsError, match=r"its activation is unknown: set MODEL\.VLM\.ACTIVATION to 'quick_gelu'"):
        build_vlm(tiny_cfg)


def test_unknown_activation_is_refused():
    with pytest.raises(ConfigError, match=r"MODEL\.VLM\.ACTIVATION must be one of quick_gelu, gelu, got 'relu'"):
        choose_activation("relu", "", None, "gelu")


# ---------------------------------------------------------------------- fetching


def test_name_of_the_catalogue_fills_a_tower(tiny_cfg, add_entry, monkeypatch, tmp_path):
    monkeypatch.setenv("OVRS_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    expected = build_vlm(tiny_cfg).clip.state_dict()
    torch.save(expected, tmp_path / "weights" / "mine.pth")
    tiny_cfg.MODEL.VLM.WEIGHTS = add_entry("mine", arch=tiny_cfg.MODEL.VLM.ARCH, activation="quick_gelu")
    torch.manual_seed(1)
    assert all(torch.equal(t, expected[name]) for name, t in build_vlm(tiny_cfg).clip.state_dict().items())


def test_weights_that_cannot_be_had_name_the_key(tiny_cfg, monkeypatch, tmp_path):
    monkeypatch.setenv("OVRS_WEIGHTS", str(tmp_path))
    tiny_cfg.MODEL.PRIOR.WEIGHTS = "rsib/ViT-B-8"
    tiny_cfg.MODEL.PRIOR.ARCH = "vit_base_patch8_224.dino"
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth", 1]
    with pytest.raises(WeightsError, match=r"MODEL\.PRIOR\.WEIGHTS: .*cannot be downloaded automatically.*RSIB\.pth"):
        DinoPrior(tiny_cfg)


@pytest.fixture
def timms_own(tiny_cfg, add_entry, monkeypatch, tmp_path):
    """An entry that timm would fetch."""
    monkeypatch.setenv("OVRS_WEIGHTS", str(tmp_path))
    tiny_cfg.MODEL.PRIOR.ARCH = "vit_tiny_patch16_224.augreg_in21k"
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth", 1]
    tiny_cfg.MODEL.PRIOR.WEIGHTS = add_entry("own-vit", arch=tiny_cfg.MODEL.PRIOR.ARCH, hub="a/hub", timm=True)
    return tiny_cfg


def test_failed_download_by_timm_says_what_to_do(timms_own):
    words = r"downloading vit_tiny_patch16_224.* from https://huggingface.co/a/hub.* failed .*ovrs models fetch own-vit"
    with pytest.raises(WeightsError, match=words):
        DinoPrior(timms_own)


def test_file_in_the_cache_comes_before_timms_download(timms_own, tmp_path):
    model = timm.create_model(timms_own.MODEL.PRIOR.ARCH, depth=1, num_classes=0)
    torch.save(model.state_dict(), tmp_path / "own-vit.pth")
    found = DinoPrior(timms_own).vit.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in model.state_dict().items())
