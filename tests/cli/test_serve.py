"""ovrs serve: how it refuses. What it serves is tested in tests/serve."""

import importlib.util

import pytest


def test_missing_packages_end_in_the_line_that_installs_them(ovrs, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    with pytest.raises(SystemExit) as caught:
        ovrs("serve", "--model", "output/demo/gsnet")
    assert caught.value.code == "ovrs: ovrs serve needs gradio; install with: pip install 'ovrs[serve]'"


@pytest.mark.parametrize("words", [(), ("--model", "a", "--config-file", "b.yaml")])
def test_model_must_be_named(ovrs, words):
    pytest.importorskip("gradio", reason="pip install 'ovrs[serve]'")
    with pytest.raises(SystemExit) as caught:
        ovrs("serve", *words)
    assert "name a trained model: --model" in caught.value.code
