"""The model for people who name none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ovrs.config import load_config
from ovrs.errors import WeightsError
from ovrs.heads import head_class
from ovrs.zoo import cached_path, default, entry_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An empty cache folder; the list collects what is fetched, which works for the names in ``here``."""
    monkeypatch.setenv("OVRS_WEIGHTS", str(tmp_path))
    return []


def put(name: str) -> None:
    path = cached_path(entry_of(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")


def no_network(name: str) -> None:
    raise WeightsError(f"{name}: no network")


@pytest.mark.parametrize(("config", "weights"), default.MODELS)
def test_listed_weights_are_those_of_the_configuration(config: str, weights: tuple[str, ...]):
    cfg = load_config(config)
    named = {cfg.MODEL.VLM.WEIGHTS, cfg.MODEL.CLIP_ATTENTION.UPSAMPLER_WEIGHTS} - {""}
    assert set(weights) == named
    assert not head_class(cfg).needs_training


def test_what_is_there_is_taken(cache: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(default, "fetch", no_network)
    put("openai/ViT-B-16")
    assert default.default_config() == "training_free/segearth_ov_plain"
    put("simfeatup/jbu_one")
    assert default.default_config() == "training_free/segearth_ov"


def test_otherwise_the_best_that_can_be_fetched(cache: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(default, "fetch", cache.append)
    assert default.default_config() == "training_free/segearth_ov"
    assert cache == ["openai/ViT-B-16", "simfeatup/jbu_one"]

    def only_clip(name: str) -> None:
        if name != "openai/ViT-B-16":
            no_network(name)

    monkeypatch.setattr(default, "fetch", only_clip)
    assert default.default_config() == "training_free/segearth_ov_plain"


def test_without_network_it_asks_once_and_it_says_what_to_put_where(cache: list[str], monkeypatch: pytest.MonkeyPatch):
    def no_download(address: str, *_: object, **__: object) -> None:
        cache.append(address)
        raise WeightsError("no network.")

    monkeypatch.setattr(sys.modules["ovrs.zoo.fetch"], "download", no_download)
    with pytest.raises(WeightsError, match="no network") as caught:
        default.default_config()
    assert cache == [entry_of("openai/ViT-B-16").address]
    message = str(caught.value)
    assert str(cached_path(entry_of("openai/ViT-B-16"))) in message
    assert message.count(entry_of("openai/ViT-B-16").address) == 1
