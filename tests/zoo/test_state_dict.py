from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pickle
import shutil
import sys
import types
import zipfile

import pytest
import torch
from openai_file import SCALARS, as_torchscript, random_state
from safetensors.torch import save_file
from torch import nn

from ovrs.backbones import DinoPrior, Dinov3Prior, XcitPrior, build_towers, build_vlm
from ovrs.errors import WeightsError
from ovrs.structures import TowerRequest
from ovrs.zoo.state_dict import load_strictly, read_state_dict, sha256_of_file


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my weights"
    path.mkdir()
    return path


@pytest.fixture
def dino_state(tiny_prior) -> dict[str, torch.Tensor]:
    """A state dict of the tiny DINO with values of its own."""
    return {name: torch.randn_like(tensor) for name, tensor in tiny_prior.vit.state_dict().items()}


@pytest.fixture
def clip_state(tiny_vlm) -> dict[str, torch.Tensor]:
    """A state dict of the tiny CLIP, in float16 and with fused attention, as OpenAI's files have it."""
    return random_state(tiny_vlm.clip)


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


# ---------------------------------------------------------------------- formats


def plain(state):
    return state


def state_dict_of_a_wrapped_model(state):
    return {"state_dict": prefixed(state, "module."), "epoch": 3}


def dino_training(state):
    """DINO's checkpoint: student, teacher, pretext head, and an argparse.Namespace."""
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    head = {"module.head.mlp.0.weight": torch.randn(4, 4), "module.head.last_layer.weight_g": torch.randn(4, 1)}
    return {
        "student": prefixed(other, "module.backbone."),
        "teacher": prefixed(state, "module.backbone.") | head,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 300,
        "args": argparse.Namespace(arch="vit_base", patch_size=8),
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def backbone_with_head(state):
    return prefixed(state, "backbone.") | {"head.weight": torch.randn(2, 2), "head.bias": torch.randn(2)}


def detectron2_checkpoint(state):
    return {"model": state, "iteration": 7, "trainer": {"hooks": {}}}


FORMATS = [plain, state_dict_of_a_wrapped_model, dino_training, backbone_with_head, detectron2_checkpoint]


def check_dino(cfg, path, state, caplog, tower=DinoPrior):
    cfg.MODEL.PRIOR.WEIGHTS = str(path)
    with caplog.at_level(logging.WARNING, logger="ovrs"):
        prior = tower(cfg)
    assert "not used" not in caplog.text
    for name, tensor in prior.vit.state_dict().items():
        assert torch.equal(tensor, state[name].float()), name
    assert prior(torch.randn(1, 3, 32, 32), TowerRequest()).dense.isfinite().all()


@pytest.mark.parametrize("wrap", FORMATS, ids=lambda wrap: wrap.__name__)
def test_pytorch_file_fills_every_tensor(tiny_cfg, dino_state, folder, caplog, wrap):
    path = folder / "RSIB.pth"
    torch.save(wrap(dino_state), path)
    check_dino(tiny_cfg, path, dino_state, caplog)


def test_old_pytorch_format_fills_every_tensor(tiny_cfg, dino_state, folder, caplog):
    path = folder / "old.pt"
    torch.save(dino_state, path, _use_new_zipfile_serialization=False)
    check_dino(tiny_cfg, path, dino_state, caplog)


def test_safetensors_fill_every_tensor(tiny_cfg, dino_state, folder, caplog):
    path = folder / "dino.safetensors"
    save_file(dino_state, path)
    check_dino(tiny_cfg, path, dino_state, caplog)


def test_half_precision_becomes_float32(tiny_cfg, dino_state, folder, caplog):
    half = {name: tensor.half() for name, tensor in dino_state.items()}
    torch.save(half, folder / "half.pt")
    check_dino(tiny_cfg, folder / "half.pt", half, caplog)


def test_metas_names_of_dinov3_become_timms(tiny_cfg, folder, caplog):
    tiny_cfg.MODEL.PRIOR.NAME = "Dinov3Prior"
    tiny_cfg.MODEL.PRIOR.ARCH = "vit_small_patch16_dinov3"
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth", 2, "embed_dim", 32, "num_heads", 2, "img_size", 32]
    state = {name: torch.randn_like(tensor) for name, tensor in Dinov3Prior(tiny_cfg).vit.state_dict().items()}
    renames = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    metas = {}
    for name, tensor in state.items():
        for timms, theirs in renames.items():
            name = name.replace(timms, theirs)
        metas[name] = tensor
    assert sum("storage_tokens" in name or ".gamma" in name for name in metas) == 5
    metas |= {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.zeros(4)}
    metas |= {f"blocks.{i}.attn.qkv.bias_mask": torch.zeros(96) for i in range(2)}
    torch.save(metas, folder / "dinov3.pth")
    check_dino(tiny_cfg, folder / "dinov3.pth", state, caplog, Dinov3Prior)
    torch.save(state, folder / "timm.pth")
    check_dino(tiny_cfg, folder / "timm.pth", state, caplog, Dinov3Prior)


def test_metas_names_of_xcit_become_timms(tiny_cfg, folder, caplog):
    tiny_cfg.MODEL.PRIOR.NAME = "XcitPrior"
    tiny_cfg.MODEL.PRIOR.ARCH = "xcit_nano_12_p8_224"
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth", 2, "embed_dim", 32, "num_heads", 2]
    state = {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor  # variances are not negative
        for name, tensor in XcitPrior(tiny_cfg).vit.state_dict().items()
    }
    metas = {name.replace("pos_embed.", "pos_embeder."): tensor for name, tensor in state.items()}
    for block in range(2):
        for kind in ("weight", "bias"):
            parts = [metas.pop(f"cls_attn_blocks.{block}.attn.{part}.{kind}") for part in "qkv"]
            metas[f"cls_attn_blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    torch.save(metas, folder / "xcit.pth")
    check_dino(tiny_cfg, folder / "xcit.pth", state, caplog, XcitPrior)
    torch.save(state, folder / "timm.pth")
    check_dino(tiny_cfg, folder / "timm.pth", state, caplog, XcitPrior)


def check_clip(cfg, path, state, caplog):
    cfg.MODEL.VLM.WEIGHTS = str(path)
    cfg.MODEL.VLM.ACTIVATION = "quick_gelu"
    with caplog.at_level(logging.WARNING, logger="ovrs"):
        clip = build_vlm(cfg).clip
    assert "not used" not in caplog.text
    for name, tensor in clip.state_dict().items():
        stem, _, part = name.rpartition(".")
        if part in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            expected = state[f"{stem}.in_proj_weight"].chunk(3)["qkv".index(part[0])]
        else:
            expected = state[name]
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected.float()), name


def test_openais_torchscript_archive_fills_every_tensor(tiny_cfg, clip_state, folder, caplog):
    as_torchscript(clip_state).save(str(folder / "ViT-B-16.pt"))
    assert set(SCALARS) < set(read_state_dict(folder / "ViT-B-16.pt"))
    check_clip(tiny_cfg, folder / "ViT-B-16.pt", clip_state, caplog)


def test_open_clips_checkpoint_fills_every_tensor(tiny_cfg, clip_state, folder, caplog):
    """As in RemoteCLIP's and GeoRSCLIP's files, with and without the training script's wrapper."""
    torch.save({"epoch": 1, "state_dict": prefixed(clip_state, "module.")}, folder / "wrapped.pt")
    check_clip(tiny_cfg, folder / "wrapped.pt", clip_state, caplog)
    del clip_state["logit_scale"]
    torch.save(clip_state, folder / "plain.pt")
    check_clip(tiny_cfg, folder / "plain.pt", clip_state | {"logit_scale": torch.tensor(0.07).log().neg()}, caplog)


def test_zip_with_a_training_checkpoint_inside_fills_every_tensor(tiny_cfg, clip_state, folder, caplog):
    """As SkyCLIP is published."""
    torch.save({"epoch": 20, "state_dict": prefixed(clip_state, "module.")}, folder / "epoch_20.pt")
    with zipfile.ZipFile(folder / "SkyCLIP.zip", "w") as archive:
        archive.write(folder / "epoch_20.pt", "SkyCLIP/epoch_20.pt")
        archive.writestr("SkyCLIP/README.txt", "read me")
        archive.writestr("__MACOSX/SkyCLIP/._epoch_20.pt", "a resource fork")
    check_clip(tiny_cfg, folder / "SkyCLIP.zip", clip_state, caplog)


def test_mmengine_checkpoint_gives_its_tensors_without_mmengine(folder, monkeypatch):
    """mmengine stores live log buffers beside the weights."""
    module = types.ModuleType("mmengine.logging")
    module.HistoryBuffer = type("HistoryBuffer", (), {"__module__": "mmengine.logging"})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
        patch.setitem(sys.modules, "mmengine.logging", module)
        buffer = module.HistoryBuffer()
        buffer.values = [1.0, 2.0]
        content = {"meta": {"epoch": 1}, "message_hub": {"loss": buffer}, "state_dict": {"weight": torch.arange(3)}}
        torch.save(content, folder / "mmengine.pth")
    state = read_state_dict(folder / "mmengine.pth")
    assert list(state) == ["weight"]
    assert torch.equal(state["weight"], torch.arange(3))


# ---------------------------------------------------------------------- refused


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, victim) -> None:
        self.victim = victim

    def __reduce__(self):
        return os.system, (f'touch "{self.victim}"',)


class Trap(Bomb):
    """The same through a function that is on nobody's list."""

    def __reduce__(self):
        return shutil.copyfile, (__file__, str(self.victim))


@pytest.mark.parametrize("bomb", [Bomb, Trap])
@pytest.mark.parametrize("save", ["torch", "old torch", "pickle"])
def test_pickled_code_is_refused_and_not_run(tiny_cfg, dino_state, folder, save, bomb):
    path, victim = folder / "bomb.pth", folder / "victim"
    content = {"teacher": dino_state, "args": bomb(victim)}
    if save == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == "torch")
    tiny_cfg.MODEL.PRIOR.WEIGHTS = str(path)
    with pytest.raises(WeightsError, match=r"bomb\.pth cannot be read as .* contains code, which is never run"):
        DinoPrior(tiny_cfg)
    assert not victim.exists()


@pytest.mark.parametrize("bomb", [Bomb, Trap])
def test_code_in_a_file_that_looks_like_mmengines_is_not_run(folder, bomb):
    torch.save(
        {"state_dict": {"weight": torch.zeros(1)}, "hub": ["mmengine.", bomb(folder / "victim")]}, folder / "m.pt"
    )
    with contextlib.suppress(WeightsError):  # refusing it is fine, and so is skipping the object
        read_state_dict(folder / "m.pt")
    assert not (folder / "victim").exists()


@pytest.mark.parametrize("bomb", [Bomb, Trap])
def test_bomb_would_work(folder, bomb):
    """Or the tests above would prove nothing."""
    pickle.loads(pickle.dumps(bomb(folder / "victim")))
    assert (folder / "victim").exists()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (["README.txt"], "is a zip without a weights file"),
        (["a.pt", "b.pth"], r"holds 2 weights files, \['a.pt', 'b.pth'\]; unpack it"),
        (["a.pt"], "cannot be read as .* it is damaged"),
    ],
)
def test_zip_without_one_weights_file_is_named(folder, members, reason):
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        for member in members:
            archive.writestr(member, "no weights")
    with pytest.raises(WeightsError, match=rf"my weights/packed\.zip {reason}"):
        read_state_dict(folder / "packed.zip")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 10, -200])
def test_truncated_file_is_named(dino_state, folder, suffix, kept):
    path = folder / f"cut{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(dino_state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=rf"cut\{suffix} cannot be read .* it is damaged"):
        read_state_dict(path)


def test_truncated_torchscript_archive_is_named(clip_state, folder):
    path = folder / "cut.pt"
    as_torchscript(clip_state).save(str(path))
    whole = folder / "whole.pt"
    path.rename(whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist()[:-5]:
            target.writestr(name, source.read(name))
        target.writestr("cut/constants.pkl", b"")
    with pytest.raises(WeightsError, match=r"cut\.pt cannot be read"):
        read_state_dict(path)


def test_text_file_is_refused(folder):
    (folder / "notes.pt").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(WeightsError, match=r"notes\.pt cannot be read"):
        read_state_dict(folder / "notes.pt")


def test_missing_file_is_named(folder):
    with pytest.raises(WeightsError, match=r"absent\.pt does not exist; give the path"):
        read_state_dict(folder / "absent.pt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"epoch": 3, "args": {"lr": 1.0}}, r"holds no tensors; its entries are \['args', 'epoch'\]"),
        ([torch.zeros(1)], "holds a list, not a dictionary"),
        (torch.zeros(3), "holds a Tensor, not a dictionary"),
    ],
)
def test_file_without_named_tensors_is_refused(folder, content, reason):
    torch.save(content, folder / "other.pt")
    with pytest.raises(WeightsError, match=f"other.pt {reason}"):
        read_state_dict(folder / "other.pt")


def test_weights_of_another_architecture_name_tensor_and_both_shapes(tiny_cfg, dino_state, folder):
    torch.save(dino_state, folder / "small.pt")
    tiny_cfg.MODEL.PRIOR.WEIGHTS = str(folder / "small.pt")
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS[5] = 48  # embed_dim
    with pytest.raises(WeightsError) as error:
        DinoPrior(tiny_cfg)
    message = str(error.value)
    assert str(folder / "small.pt") in message
    assert "cls_token is (1, 1, 24), the model's is (1, 1, 48)" in message
    assert "Is MODEL.PRIOR.ARCH, 'vit_tiny_patch16_224', the architecture of this file?" in message


def test_missing_tensors_are_counted_and_named(tiny_cfg, dino_state, folder):
    shallow = {name: tensor for name, tensor in dino_state.items() if not name.startswith("blocks.3.")}
    torch.save(shallow, folder / "shallow.pt")
    tiny_cfg.MODEL.PRIOR.WEIGHTS = str(folder / "shallow.pt")
    missing = len(dino_state) - len(shallow)
    assert missing > 0
    with pytest.raises(WeightsError, match=rf"{missing} of {len(dino_state)} tensors are missing, .*blocks\.3\.norm1"):
        DinoPrior(tiny_cfg)


def test_clip_of_another_architecture_is_refused(tiny_cfg, clip_state, folder):
    clip_state["visual.proj"] = torch.zeros(32, 20)
    torch.save(clip_state, folder / "other.pt")
    tiny_cfg.MODEL.VLM.WEIGHTS = str(folder / "other.pt")
    tiny_cfg.MODEL.VLM.ACTIVATION = "gelu"
    with pytest.raises(
        WeightsError, match=r"visual.proj is \(32, 20\), the model's is \(32, 16\)\. Is MODEL\.VLM\.ARCH"
    ):
        build_vlm(tiny_cfg)


def test_refused_weights_change_nothing():
    module = nn.Linear(2, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(WeightsError, match=r"file: 1 tensors do not fit: bias is \(3,\), the model's is \(2,\)"):
        load_strictly(module, {"weight": torch.ones(2, 2), "bias": torch.ones(3)}, "file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_surplus_tensors_are_reported_unless_expected(caplog):
    module = nn.Linear(2, 2)
    state = {"weight": torch.ones(2, 2), "bias": torch.ones(2), "head.weight": torch.ones(1), "extra": torch.ones(1)}
    with caplog.at_level(logging.WARNING, logger="ovrs"):
        load_strictly(module, state, "file", ignore=("head.",))
    assert "file: 1 tensors are not used, for example ['extra']" in caplog.text
    assert torch.equal(module.bias, torch.ones(2))


def test_checkpoint_fills_the_tower_without_its_own_weights(tiny_cfg):
    """A segmenter's checkpoint holds both towers; then nothing is looked up for them."""
    tiny_cfg.MODEL.PRIOR.WEIGHTS = "rsib/ViT-B-8"
    tiny_cfg.MODEL.PRIOR.ARCH = "vit_base_patch8_224.dino"
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["depth", 1]
    assert isinstance(build_towers(tiny_cfg, load_weights=False)["prior"], DinoPrior)


def test_sum_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>quota exceeded</html>", "is a web page, not weights"),
        (b"\n <html><body>sign in</body></html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:65\nsize 102979767\n", "is a pointer of git-lfs"),
        (b"", "it is damaged"),
        (b"neither this nor that", "it is damaged, or it contains code, which is never run"),
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_what_lies_in_the_place_of_weights_is_told_without_advice_to_run_it(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        read_state_dict(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(value):
    module = torch.nn.Linear(3, 2)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state["bias"][1] = value
    with pytest.raises(WeightsError, match=r"a\.pth: 1 tensors hold NaN or infinity: bias\."):
        load_strictly(module, state, "a.pth")
