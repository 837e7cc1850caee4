"""Official CAT-Seg and RSKT-Seg checkpoints, by the manifests of the official models' parameters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from golden import fill
from torch import Tensor

from ovrs.config import get_cfg
from ovrs.errors import WeightsError
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.zoo import LAYOUTS, from_any_layout
from ovrs.zoo.state_dict import load_strictly, read_state_dict

REMOTE = "sem_seg_head.predictor.clip_model_remote."
LAYER = re.compile(r"(.*\.transformer\.layers\.)(\d+)(\..*)")
# Per published model: head, layout, group of keys, layers of the recording.
MODELS = {
    "cat_seg": ("CATSegHead", "CAT-Seg", "CAT_SEG", 2),
    "rskt_seg": ("RSKTSegHead", "RSKT-Seg", "RSKT_SEG", 3),
    "gsnet": ("GSNetHead", "GSNet", "GSNET", 2),
}
NEW = ["cat_seg", "rskt_seg"]


def manifest_of(name: str, layers: int | None = None) -> dict[str, list[int]]:
    """The official names and shapes; with another number of layers, those of the first one again and again."""
    path = Path(fill.__file__).with_name(f"{name}_vitb16_manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if layers is None:
        return manifest
    changed = {}
    for key, shape in manifest.items():
        match = LAYER.fullmatch(key)
        # CLIP's own transformers have resblocks, not layers.
        if match is None:
            changed[key] = shape
        elif match[2] == "0":
            changed |= {f"{match[1]}{layer}{match[3]}": shape for layer in range(layers)}
    return changed


def on_meta(manifest: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in manifest.items()}


def shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}


def published(name: str, layers: int | None = None) -> dict[str, Tensor]:
    """The published model's tensors in our names, without numbers."""
    head, _, node, default = MODELS[name]
    cfg = get_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME = head
    cfg.MODEL.VLM.WEIGHTS = ""
    cfg.MODEL[node].NUM_LAYERS = layers or default
    if name == "cat_seg":
        cfg.MODEL.PRIOR.NAME = ""
    if name == "rskt_seg":
        cfg.MODEL.COMPANION.ARCH = "ViT-B-32"
    with torch.device("meta"):
        return OpenVocabSegmenter(cfg).state_dict()


# ---------------------------------------------------------------------- names and shapes


@pytest.mark.parametrize(
    ("name", "layers"), [("cat_seg", None), ("cat_seg", 1), ("rskt_seg", None), ("rskt_seg", 2), ("rskt_seg", 5)]
)
def test_official_checkpoint_of_any_depth_fills_the_model_exactly(name: str, layers: int | None):
    manifest = manifest_of(name, layers)
    ours = published(name, layers)
    assert len({match[2] for match in map(LAYER.fullmatch, manifest) if match}) == (layers or MODELS[name][3])
    assert shapes(LAYOUTS[MODELS[name][1]].to_ours(on_meta(manifest))) == shapes(ours)


def test_cat_segs_export_is_the_official_checkpoint():
    assert shapes(LAYOUTS["CAT-Seg"].to_official(published("cat_seg"))) == manifest_of("cat_seg")


def test_rskt_segs_export_is_all_that_the_official_model_reads():
    exported = shapes(LAYOUTS["RSKT-Seg"].to_official(published("rskt_seg")))
    manifest = manifest_of("rskt_seg")
    missing = manifest.keys() - exported.keys()
    assert exported == {name: manifest[name] for name in exported}
    assert len(missing) > 100
    # RemoteCLIP's text tower: in the official file, but nothing reads it.
    assert all(name.startswith(REMOTE) for name in missing)
    assert not any(name.startswith(f"{REMOTE}visual.") for name in missing)


@pytest.mark.parametrize("name", MODELS)
def test_projects_are_told_apart_by_their_names(name: str):
    official = on_meta(manifest_of(name))
    assert shapes(from_any_layout(official)) == shapes(published(name))
    others = {layout: LAYOUTS[layout].marker in official for _, layout, *_ in MODELS.values()}
    # GSNet's marker is in RSKT-Seg's files too: the layouts are tried in order.
    assert others[MODELS[name][1]]
    assert next(layout.name for layout in LAYOUTS.values() if layout.marker in official) == MODELS[name][1]


@pytest.mark.parametrize("name", NEW)
def test_unknown_tensor_is_named(name: str):
    official = on_meta(manifest_of(name)) | {"sem_seg_head.predictor.transformer.surprise": torch.zeros(1)}
    with pytest.raises(WeightsError, match=rf"{MODELS[name][1]} layout does not know 1 tensors.*transformer\.surprise"):
        from_any_layout(official)


# ---------------------------------------------------------------------- numbers, on tiny models


@pytest.fixture(params=NEW)
def tiny_model(request: pytest.FixtureRequest, tiny_cfg: CfgNode, tiny_arch: Path) -> tuple[str, OpenVocabSegmenter]:
    """A layout's name and a tiny model whose tensors all differ."""
    head, layout, node, _ = MODELS[request.param]
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = head
    for key in ("HIDDEN_DIM", "DECODER_DIMS", "TAP_DIMS", "TAP_PROJ_DIMS"):
        tiny_cfg.MODEL[node][key] = tiny_cfg.MODEL.GSNET[key]
    if head == "RSKTSegHead":
        tiny_cfg.MODEL.COMPANION.ARCH, tiny_cfg.MODEL.COMPANION.INPUT_SIZE = str(tiny_arch), 32
    else:
        tiny_cfg.MODEL.PRIOR.NAME = ""
    model = OpenVocabSegmenter(tiny_cfg)
    state = fill.filled_state_dict({name: tensor.shape for name, tensor in model.state_dict().items()}, 3)
    load_strictly(model, {name: torch.from_numpy(value) for name, value in state.items()}, "fill")
    return layout, model


def test_round_trip_is_bit_exact(tiny_model: tuple[str, OpenVocabSegmenter]):
    layout, model = tiny_model
    ours = model.state_dict()
    official = LAYOUTS[layout].to_official(ours)
    assert len(official) == len(ours)
    assert not set(official) & set(ours)
    back = LAYOUTS[layout].to_ours(official)
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())


def test_official_file_fills_a_model_to_the_same_result(
    tiny_model: tuple[str, OpenVocabSegmenter], tiny_cfg: CfgNode, tmp_path: Path
):
    layout, model = tiny_model
    state = LAYOUTS[layout].to_official(model.state_dict())
    if layout == "RSKT-Seg":
        state[f"{REMOTE}ln_final.weight"] = state[f"{REMOTE}logit_scale"] = torch.zeros(1)
        state[f"{REMOTE}transformer.resblocks.0.ln_1.weight"] = torch.zeros(1)
    torch.save({"model": state, "iteration": 30000}, tmp_path / "model final.pth")

    other = OpenVocabSegmenter(tiny_cfg)
    load_strictly(other, from_any_layout(read_state_dict(tmp_path / "model final.pth")), "model final.pth")
    record = {"image": torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), "vocabulary": ["road", "tree"]}
    with torch.no_grad():
        results = [each.eval()([record])[0]["scores"] for each in (model, other)]
    assert torch.equal(*results)
