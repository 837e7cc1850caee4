"""ovrs weights convert: between our names and the original projects', without changing a bit."""

import pytest
import torch
from safetensors.torch import load_file

from ovrs.engine import build_model, load_weights
from ovrs.zoo import LAYOUTS


@pytest.fixture
def model(tiny_cfg):
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 2  # as many as the official names have
    return build_model(tiny_cfg)


@pytest.fixture
def ours(model, tmp_path):
    """A training checkpoint of this project."""
    path = tmp_path / "our run" / "model_final.pth"
    path.parent.mkdir()
    torch.save({"model": model.state_dict(), "iteration": 5}, path)
    return path


def assert_same_tensors(found, expected) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_official_layout_and_back_is_bit_exact(ovrs, model, ours, tmp_path):
    official, back = tmp_path / "official.pth", tmp_path / "back.pth"
    ovrs("weights", "convert", ours, official, "--to", "GSNet")
    content = torch.load(official, weights_only=True)["model"]
    assert_same_tensors(content, LAYOUTS["GSNet"].to_official(model.state_dict()))
    assert LAYOUTS["GSNet"].marker in content
    ovrs("weights", "convert", official, back)
    assert_same_tensors(torch.load(back, weights_only=True)["model"], model.state_dict())


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("to_official", [False, True], ids=["ours", "official"])
def test_either_file_fills_a_model(ovrs, model, ours, tiny_cfg, tmp_path, name, to_official):
    target = tmp_path / "new folder" / name
    output = ovrs("weights", "convert", ours, target, *(("--to", "GSNet") if to_official else ()))
    assert f"{target}: {len(model.state_dict())} tensors" in output
    other = build_model(tiny_cfg)
    assert any(not torch.equal(t, model.state_dict()[n]) for n, t in other.state_dict().items())
    load_weights(other, target)
    assert_same_tensors(other.state_dict(), model.state_dict())
    assert [path.name for path in target.parent.iterdir()] == [name]


def test_tensors_that_share_memory_in_the_official_file_are_written_whole(ovrs, model, tmp_path):
    """Official weights may hold query, key and value in one tensor, of which ours are slices."""
    state = LAYOUTS["GSNet"].to_official(model.state_dict())
    stem = "sem_seg_head.predictor.clip_model.visual.transformer.resblocks.1.attn."
    parts = [state.pop(f"{stem}{part}_proj_weight") for part in "qkv"]
    torch.save({"model": state | {f"{stem}in_proj_weight": torch.cat(parts)}}, tmp_path / "official.pth")
    ovrs("weights", "convert", tmp_path / "official.pth", tmp_path / "ours.safetensors")
    assert_same_tensors(load_file(tmp_path / "ours.safetensors"), model.state_dict())


def test_weights_of_another_model_end_in_a_message(ovrs, ours, tmp_path):
    with pytest.raises(SystemExit) as caught:
        ovrs("weights", "convert", ours, tmp_path / "out.pth", "--to", "HG-RSOVSSeg")
    assert caught.value.code.startswith("ovrs: ")
    assert "has no counterpart in the HG-RSOVSSeg layout" in caught.value.code
    assert not (tmp_path / "out.pth").exists()


def test_damaged_source_is_named_and_the_target_stays(ovrs, ours, tmp_path):
    target = tmp_path / "kept.pth"
    target.write_bytes(b"as before")
    ours.write_bytes(ours.read_bytes()[:1500])
    with pytest.raises(SystemExit) as caught:
        ovrs("weights", "convert", ours, target)
    assert str(ours) in caught.value.code
    assert target.read_bytes() == b"as before"
