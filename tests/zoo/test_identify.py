"""What a file is, by its tensors: towers and whole models, in each project's real format."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from golden import fill
from torch import Tensor

from ovrs.errors import WeightsError
from ovrs.zoo import LAYOUTS, compare, identify
from ovrs.zoo.convert import write_weights
from ovrs.zoo.identify import tower_archs

GOLDEN = {
    "GSNet": "gsnet_vitb16",
    "CAT-Seg": "cat_seg_vitb16",
    "RSKT-Seg": "rskt_seg_vitb16",
    "HG-RSOVSSeg": "hg_rsovsseg_vitl14",
}


def manifest(layout: str) -> dict[str, list[int]]:
    path = Path(fill.__file__).with_name(f"{GOLDEN[layout]}_manifest.json")
    return json.loads(path.read_text(encoding="utf-8"))


def light(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Tensors of real shapes that share one number each: files of a few kilobytes."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def save(path: Path, content: dict) -> Path:
    torch.save(content, path)
    return path


def clip_shapes(width: int = 768, depth: int = 12, patch: int = 16, side: int = 14, text: int = 512, joint: int = 512):
    shapes = {
        "visual.conv1.weight": [width, 3, patch, patch],
        "visual.positional_embedding": [side * side + 1, width],
        "visual.proj": [width, joint],
        "ln_final.weight": [text],
        "positional_embedding": [77, text],
    }
    shapes |= {f"visual.transformer.resblocks.{index}.ln_1.weight": [width] for index in range(depth)}
    return shapes | {f"transformer.resblocks.{index}.ln_1.weight": [text] for index in range(12)}


@pytest.mark.parametrize("layout", GOLDEN)
def test_published_models_are_told_apart(layout: str, tmp_path: Path):
    state = light(manifest(layout))
    if layout == "HG-RSOVSSeg":
        content = {"meta": {"epoch": 0, "iter": 80000}, "state_dict": state, "message_hub": {}, "optimizer": {}}
    else:
        content = {"model": state, "optimizer": {}, "scheduler": {}, "iteration": 29999}
    found = identify(save(tmp_path / "model_final.pth", content))
    assert (found.kind, found.layout) == ("segmenter", layout)
    assert found.progress == ("iteration 80000" if layout == "HG-RSOVSSeg" else "iteration 29999")
    assert "optimizer" in found.holds
    assert found.numbers == sum(torch.Size(shape).numel() for shape in manifest(layout).values())
    assert found.tensors == {n: tuple(t.shape) for n, t in LAYOUTS[layout].to_ours(state).items()}
    assert bool(found.left_out) == (layout == "RSKT-Seg")  # RemoteCLIP's text tower


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("shapes", "arch"),
    [
        (clip_shapes(), "ViT-B-16"),
        (clip_shapes(patch=32, side=7), "ViT-B-32"),
        (clip_shapes(1024, 24, 14, 16, 768, 768), "ViT-L-14"),
        (clip_shapes(1024, 24, 14, 24, 768, 768), "ViT-L-14-336"),
    ],
)
def test_clip_towers_are_named_by_their_shapes(shapes, arch, prefix, tmp_path):
    state = light({f"{prefix}{name}": shape for name, shape in shapes.items()})
    found = identify(save(tmp_path / "clip.pt", {"state_dict": state, "epoch": 20}))
    assert (found.kind, found.layout) == ("tower", "open_clip")
    assert found.archs[0] == arch
    assert found.progress == "epoch 20"


def test_dino_checkpoint_is_a_prior(tmp_path):
    shapes = {"backbone.patch_embed.proj.weight": [768, 3, 8, 8], "backbone.pos_embed": [1, 785, 768]}
    shapes |= {f"backbone.blocks.{index}.norm1.weight": [768] for index in range(12)}
    content = {"teacher": light(shapes), "epoch": 300, "args": argparse.Namespace(arch="vit_base")}
    found = identify(save(tmp_path / "RSIB.pth", content))
    assert (found.kind, found.archs) == ("tower", ("vit_base_patch8_224.dino",))
    assert found.progress == "epoch 300"


def test_rotary_prior_is_another_architecture():
    shapes = {"patch_embed.proj.weight": (1024, 3, 16, 16), "reg_token": (1, 4, 1024)}
    shapes |= {f"blocks.{index}.norm1.weight": (1024,) for index in range(24)}
    assert tower_archs(shapes) == ("vit_large_patch16_dinov3.sat493m",)
    assert tower_archs({**shapes, "pos_embed": (1, 197, 1024)}) == ()


def test_layouts_that_are_not_read_are_named(tmp_path):
    state = light({"vision_model.embeddings.patch_embedding.weight": [768, 3, 16, 16]})
    found = identify(save(tmp_path / "hub.bin", state))
    assert found.kind == "tower"
    assert "transformers CLIP (not read by this project" in found.layout


def test_own_files_and_their_metadata(tmp_path):
    state = {"vlm.clip.logit_scale": torch.zeros(()), "head.embed.weight": torch.zeros(3)}
    write_weights(state, tmp_path / "release.safetensors", {"licence": "MIT", "version": "1"})
    found = identify(tmp_path / "release.safetensors")
    assert (found.kind, found.layout) == ("segmenter", "this project")
    assert found.metadata == {"licence": "MIT", "version": "1"}


def test_slim_checkpoint_says_what_it_leaves_to_towers(tmp_path):
    model = {"vlm.clip.logit_scale": torch.zeros(()), "head.embed.weight": torch.zeros(3)}
    frozen = {"prior": {"config": {"WEIGHTS": "rsib/ViT-B-8"}, "sha256": "0" * 64}}
    found = identify(save(tmp_path / "model_final.pth", {"model": model, "iteration": 5, "frozen": frozen}))
    assert found.frozen == {"prior": "rsib/ViT-B-8"}
    expected = {**found.tensors, "prior.vit.norm.weight": (768,)}
    assert compare(found.tensors, expected, found.frozen).exact
    assert compare(found.tensors, expected).missing == ("prior.vit.norm.weight",)


def test_anything_else_is_unknown(tmp_path):
    found = identify(
        save(tmp_path / "resnet.pth", {"conv1.weight": torch.zeros(2, 3, 7, 7), "fc.bias": torch.zeros(9)})
    )
    assert found.kind == "unknown"
    assert "conv1.weight, fc.bias" in found.layout


def test_published_file_is_recognised_by_its_sum(tmp_path, add_entry):
    path = save(tmp_path / "renamed.pth", light(clip_shapes()))
    assert identify(path).known_as == ""
    add_entry("mine", arch="ViT-B-16", sha256=identify(path).sha256)
    assert identify(path).known_as == "mine"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"gone\.pth does not exist"):
        identify(tmp_path / "gone.pth")


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"model": _Evil()}, path)
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        identify(path)
    assert not Path("evil was here").exists()


class _Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("evil was here"),)


def test_differences_are_missing_surplus_and_reshaped():
    fit = compare({"a": (1,), "b": (2, 3), "d": ()}, {"a": (1,), "b": (2, 4), "c": (5,)})
    assert (fit.missing, fit.surplus) == (("c",), ("d",))
    assert fit.reshaped == ("b: [2, 3] in the file, [2, 4] in the model",)
    assert not fit.exact
    assert str(fit) == "1 missing (c); 1 surplus (d); 1 of another shape (b: [2, 3] in the file, [2, 4] in the model)"
    assert compare({"a": (1,)}, {"a": (1,)}).exact
