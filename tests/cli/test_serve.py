"""ovrs serve: how it refuses. What it serves is tested in tests/serve."""

import importlib.util

import pytest


def test_missing_packages_end_in_the_line_that_installs_them(ovrs, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    with pytest.raises(SystemExit) as caught:
        ovrs("serve", "--model", "output/demo/gsnet")
    assert caught.value.code == "ovrs: ovrs serve needs gradio; install with: pip install 'ovrs[serve]'"


def test_two_models_are_refused(ovrs):
    pytest.importorskip("gradio", reason="pip install 'ovrs[serve]'")
    with pytest.raises(SystemExit) as caught:
        ovrs("serve", "--model", "a", "--config-file", "b.yaml")
    assert "name a trained model: --model" in caught.value.code


def test_without_a_model_and_without_network_it_says_what_to_fetch(ovrs, no_network):
    pytest.importorskip("gradio", reason="pip install 'ovrs[serve]'")
    with pytest.raises(SystemExit) as caught:
        ovrs("serve")
    assert f"put the file at {no_network / 'ViT-B-16.pt'}" in caught.value.code


def test_without_a_model_the_one_that_needs_no_training_is_served_and_told(ovrs, default_model, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="pip install 'ovrs[serve]'")
    import uvicorn

    said = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: said.append(capsys.readouterr().err))
    ovrs("serve", "--port", 0)
    assert f"No model named: using {default_model}, which needs no training." in said[0]
