from pathlib import Path

import pytest
import torch

from ovrs.engine import CheckpointStore, build_model, load_weights
from ovrs.errors import WeightsError
from ovrs.zoo.layouts import LAYOUTS

CONTENT = {"model": {"w": torch.ones(3)}, "optimizer": {}, "scaler": {}, "iteration": 5, "seed": 1}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "a run")
    store.save("model_0000004", CONTENT)
    return store


def test_saved_content_comes_back(store):
    path = store.last()
    assert path.name == "model_0000004.pth"
    content = store.load(path)
    torch.testing.assert_close(content.pop("model")["w"], torch.ones(3))
    assert content == {key: value for key, value in CONTENT.items() if key != "model"}


def test_a_folder_without_checkpoints_has_no_last_one(tmp_path):
    assert CheckpointStore(tmp_path).last() is None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64")])
def test_a_failing_write_leaves_the_previous_checkpoint(store, monkeypatch, error):
    def fail_halfway(content, stream):
        stream.write(b"half a checkpoint")
        raise error

    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises(OSError, match=r"model_0000009\.pth could not be written .*(No space|unexpected pos)"):
        store.save("model_0000009", CONTENT)
    assert store.load(store.last())["iteration"] == 5
    assert sorted(path.name for path in store.folder.iterdir()) == ["last_checkpoint", "model_0000004.pth"]


def test_a_failing_write_keeps_the_file_of_the_same_name(store, monkeypatch):
    before = store.last().read_bytes()
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk failure")))
    with pytest.raises(OSError, match="disk failure"):
        store.save("model_0000004", CONTENT)
    assert store.last().read_bytes() == before


def test_a_damaged_checkpoint_names_itself_and_the_way_out(store):
    path = store.last()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"model_0000004\.pth cannot be read.*write its name into .*last_checkpoint"):
        store.load(path)


def test_a_vanished_checkpoint_is_an_error_not_a_new_start(store):
    store.last().unlink()
    with pytest.raises(WeightsError, match=r"last_checkpoint names the checkpoint 'model_0000004\.pth', which"):
        store.last()


def test_bare_weights_are_no_training_checkpoint(store):
    torch.save({"model": {"w": torch.ones(3)}}, store.last())
    with pytest.raises(WeightsError, match="lacks optimizer, scaler, iteration, seed"):
        store.load(store.last())


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_weights_of_a_training_checkpoint_fill_another_model(tiny_cfg, tmp_path):
    source, target = build_model(tiny_cfg), build_model(tiny_cfg)
    path = CheckpointStore(tmp_path).save("model_final", {**CONTENT, "model": source.state_dict()})
    assert not equal(source, target)
    assert len(load_weights(target, path)) == 64
    assert equal(source, target)


def test_weights_in_the_official_layout_fill_our_model(tiny_cfg, tmp_path):
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 2
    source, target = build_model(tiny_cfg), build_model(tiny_cfg)
    official = LAYOUTS["GSNet"].to_official(source.state_dict())
    assert set(official).isdisjoint(source.state_dict())
    torch.save({"model": official, "iteration": 3}, tmp_path / "official.pth")
    load_weights(target, tmp_path / "official.pth")
    assert equal(source, target)


def test_weights_are_found_by_a_name_of_the_catalogue(tiny_cfg, tmp_path, monkeypatch):
    source, target = build_model(tiny_cfg), build_model(tiny_cfg)
    torch.save({"model": source.state_dict()}, tmp_path / "fetched.pth")
    monkeypatch.setattr("ovrs.engine.checkpoint.resolve", {"gsnet-vitb16": tmp_path / "fetched.pth"}.__getitem__)
    load_weights(target, "gsnet-vitb16")
    assert equal(source, target)


def test_weights_of_another_architecture_name_tensor_shapes_and_remedy(tiny_cfg, tmp_path):
    torch.save(build_model(tiny_cfg).state_dict(), tmp_path / "other.pth")
    tiny_cfg.MODEL.GSNET.DECODER_DIMS = [48, 16]
    with pytest.raises(
        WeightsError, match=r"other\.pth: .*head\.decoder\.stages\.0.* is \(.*the model's is \(.*config file"
    ):
        load_weights(build_model(tiny_cfg), tmp_path / "other.pth")


def test_weights_of_a_deeper_model_are_refused(tiny_cfg, tmp_path):
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 3
    path = CheckpointStore(tmp_path).save("deep", {"model": build_model(tiny_cfg).state_dict()})
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 2
    with pytest.raises(WeightsError, match=r"deep\.pth: .* no place in the model.*aggregator\.layers\.2.*config file"):
        load_weights(build_model(tiny_cfg), path)


def test_missing_weights_name_the_path(tiny_cfg, tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth does not exist"):
        load_weights(build_model(tiny_cfg), tmp_path / "absent.pth")
