from __future__ import annotations

import hashlib
import re

import open_clip
import pytest
import timm
import torch

from ovrs.backbones import CATALOGUE, DinoPrior, build_vlm
from ovrs.backbones.weights import WeightsEntry, choose_activation, fetch, find_entry
from ovrs.errors import ConfigError, WeightsError

QUICK = WeightsEntry("ViT-B-16", "here", "MIT", activation="quick_gelu")
EXACT = WeightsEntry("ViT-B-16", "here", "MIT", activation="gelu")
BOTH = WeightsEntry("ViT-B-16", "here", "MIT", activation="gelu", published_with="quick_gelu")


# ---------------------------------------------------------------------- catalogue


@pytest.mark.parametrize("name", CATALOGUE)
def test_entry_is_complete(name):
    entry = CATALOGUE[name]
    assert re.fullmatch(r"[a-z0-9]+/[\w.-]+", name), "a name that cannot be mistaken for a path"
    assert entry.source
    assert entry.licence
    for values in (entry.mean, entry.std):
        assert len(values) == 3
        assert all(0 < value < 1 for value in values)
    assert bool(entry.file) != entry.timm, "either a file of this name or timm's own"
    if entry.url:
        assert entry.url.startswith("https://")
        assert entry.url.endswith(f"/{entry.file}")
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256), "what is downloaded is checked"
    assert entry.published_with != entry.activation or entry.activation is None


def test_no_two_entries_share_a_file():
    files = [entry.file for entry in CATALOGUE.values() if entry.file]
    assert len(files) > 5
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("name", CATALOGUE)
def test_architecture_of_an_entry_exists(name):
    entry = CATALOGUE[name]
    if entry.activation is None:
        assert timm.is_model(entry.arch)
    else:
        assert entry.arch in open_clip.list_models()


@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if entry.timm])
def test_timms_own_record_agrees(name):
    entry = CATALOGUE[name]
    record = timm.get_pretrained_cfg(entry.arch)
    assert record.has_weights
    assert (record.mean, record.std) == (entry.mean, entry.std)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.startswith("openai/")])
def test_openais_addresses_carry_the_sum(name):
    entry = CATALOGUE[name]
    assert entry.sha256 in entry.url
    assert entry.activation == "quick_gelu"
    assert entry.mean == open_clip.OPENAI_DATASET_MEAN
    assert entry.std == open_clip.OPENAI_DATASET_STD


def test_published_sum_of_vit_b_16():
    assert CATALOGUE["openai/ViT-B-16"].sha256.startswith("5806e77cd80f8b59890b7e101eabd078")


def test_entry_is_found_for_its_architecture_only():
    assert find_entry("openai/ViT-B-16", "ViT-B-16", "MODEL.VLM") is CATALOGUE["openai/ViT-B-16"]
    assert find_entry("my/file.pt", "ViT-B-16", "MODEL.VLM") is None
    assert find_entry("", "ViT-B-16", "MODEL.VLM") is None


def test_local_file_is_recognised_by_its_published_name():
    name = "georsclip/ViT-L-14"
    path = f"my weights/{CATALOGUE[name].file}"
    assert find_entry(path, "ViT-L-14", "MODEL.VLM") is CATALOGUE[name]
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty download cache of this test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    return tmp_path / "torch home" / "hub" / "ovrs"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file at an address, listed in the catalogue as "test/weights"."""
    content = b"weights" * 1000
    path = tmp_path / "server" / "weights.pt"
    path.parent.mkdir()
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    entry = WeightsEntry("ViT-B-16", "here", "MIT", "weights.pt", url=path.as_uri(), sha256=digest)
    monkeypatch.setitem(CATALOGUE, "test/weights", entry)
    return path


def test_path_of_a_local_file_is_itself(tmp_path):
    (tmp_path / "my weights.pt").touch()
    assert fetch(str(tmp_path / "my weights.pt"), "MODEL.VLM") == tmp_path / "my weights.pt"


def test_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.pt").touch()
    assert fetch("~/mine.pt", "MODEL.VLM") == tmp_path / "mine.pt"


def test_neither_file_nor_name_lists_the_catalogue():
    with pytest.raises(WeightsError, match=r"MODEL\.PRIOR\.WEIGHTS: 'absent\.pt' is neither .*openai/ViT-B-32.*rsib"):
        fetch("absent.pt", "MODEL.PRIOR")


def test_file_is_downloaded_once(hub, published):
    path = fetch("test/weights", "MODEL.VLM")
    assert path == hub / "weights.pt"
    assert path.read_bytes() == published.read_bytes()
    published.unlink()
    assert fetch("test/weights", "MODEL.VLM") == path


def test_download_with_another_sum_is_refused_and_not_kept(hub, published):
    published.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"downloading 'test/weights' .* failed"):
        fetch("test/weights", "MODEL.VLM")
    assert not list(hub.iterdir())


def test_cached_file_with_another_sum_is_refused(hub, published):
    path = fetch("test/weights", "MODEL.VLM")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=r"weights\.pt is damaged: its SHA-256 is not [0-9a-f]{64}\. Delete it"):
        fetch("test/weights", "MODEL.VLM")


def test_failed_download_says_where_to_put_the_file(hub, published):
    published.unlink()
    with pytest.raises(WeightsError) as error:
        fetch("test/weights", "MODEL.VLM")
    message = str(error.value)
    assert published.as_uri() in message
    assert f"put it at {hub / 'weights.pt'}, or set MODEL.VLM.WEIGHTS to its path" in message


def test_weights_without_an_address_say_where_people_get_them(hub):
    with pytest.raises(WeightsError) as error:
        fetch("rsib/ViT-B-8", "MODEL.PRIOR")
    message = str(error.value)
    assert "cannot be downloaded automatically. Get RSIB.pth (PyTorch state dict under 'teacher') from: RSIB" in message
    assert f"put it at {hub / 'RSIB.pth'}, or set MODEL.PRIOR.WEIGHTS to its path" in message


def test_file_put_into_the_cache_by_hand_is_used(hub):
    hub.mkdir(parents=True)
    (hub / "RSIB.pth").touch()
    assert fetch("rsib/ViT-B-8", "MODEL.PRIOR") == hub / "RSIB.pth"


def test_failed_download_by_timm_says_what_to_do(tiny_cfg, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = WeightsEntry("vit_tiny_patch16_224.augreg_in21k", "a hub", "Apache-2.0", timm=True)
    monkeypatch.setitem(CATALOGUE, "test/vit", entry)
    tiny_cfg.MODEL.PRIOR.WEIGHTS = "test/vit"
    tiny_cfg.MODEL.PRIOR.ARCH = entry.arch
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth", 1]
    with pytest.raises(WeightsError, match=r"downloading vit_tiny_patch16_224.* from a hub failed .* set MODEL\.PRIOR"):
        DinoPrior(tiny_cfg)
