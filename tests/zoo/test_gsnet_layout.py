"""Official GSNet checkpoints, by the manifest of the official model's parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from golden import fill

from ovrs.config import get_cfg
from ovrs.errors import WeightsError
from ovrs.segmenter import OpenVocabSegmenter
from ovrs.zoo import LAYOUTS, from_any_layout
from ovrs.zoo.state_dict import load_strictly, read_state_dict

GSNET = LAYOUTS["GSNet"]
CLIP = "sem_seg_head.predictor.clip_model."
MASKS = [f"sem_seg_head.predictor.transformer.layers.{layer}.swin_block.block_2.attn_mask" for layer in (0, 1)]


@pytest.fixture(scope="module")
def manifest() -> dict[str, list[int]]:
    path = Path(fill.__file__).with_name("gsnet_vitb16_manifest.json")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def tiny_model(tiny_cfg: CfgNode) -> OpenVocabSegmenter:
    tiny_cfg.MODEL.GSNET.NUM_LAYERS = 2
    model = OpenVocabSegmenter(tiny_cfg)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    load_strictly(model, {n: torch.from_numpy(v) for n, v in fill.filled_state_dict(shapes, 3).items()}, "fill")
    return model


def official_checkpoint(model: OpenVocabSegmenter) -> dict[str, torch.Tensor]:
    """What the official code would save: parameters and the two shift masks."""
    state = GSNET.to_official(model.state_dict())
    return state | {name: torch.zeros(4, 4, 4) for name in MASKS}


def test_every_official_tensor_has_exactly_one_place_in_the_published_model(manifest: dict):
    cfg = get_cfg()
    cfg.MODEL.VLM.WEIGHTS = ""
    with torch.device("meta"):
        ours = OpenVocabSegmenter(cfg).state_dict()
        official = {name: torch.empty(shape) for name, shape in manifest.items()}
    renamed = GSNET.to_ours(official)
    assert len(manifest) == 646
    assert {n: t.shape for n, t in renamed.items()} == {n: t.shape for n, t in ours.items()}
    back = GSNET.to_official(ours)
    assert {n: list(t.shape) for n, t in back.items()} == manifest


def test_round_trip_is_bit_exact(tiny_model: OpenVocabSegmenter):
    ours = tiny_model.state_dict()
    official = GSNET.to_official(ours)
    assert len(official) == len(ours)
    assert not set(official) & set(ours)
    assert official[f"{CLIP}logit_scale"].shape == ()
    assert official["sem_seg_head.predictor.transformer.layers.1.attention.padding_tokens"].shape == (1, 1, 32)
    back = GSNET.to_ours(official)
    assert list(back) == list(ours)
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())


@pytest.mark.parametrize("wrapped", [True, False])
def test_official_file_fills_a_model_to_the_same_result(
    tiny_model: OpenVocabSegmenter, tiny_cfg: CfgNode, tmp_path: Path, wrapped: bool
):
    path = tmp_path / "model_0029999.pth"
    state = official_checkpoint(tiny_model)
    torch.save({"model": state, "trainer": {"iteration": 30000}, "iteration": 30000} if wrapped else state, path)

    other = OpenVocabSegmenter(tiny_cfg)
    load_strictly(other, from_any_layout(read_state_dict(path)), str(path))
    assert all(torch.equal(tensor, tiny_model.state_dict()[name]) for name, tensor in other.state_dict().items())
    record = {"image": torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), "vocabulary": ["road", "tree"]}
    with torch.no_grad():
        results = [model.eval()([record])[0]["scores"] for model in (tiny_model, other)]
    assert torch.equal(*results)


def test_shift_masks_are_dropped(tiny_model: OpenVocabSegmenter):
    with_masks = official_checkpoint(tiny_model)
    assert set(MASKS) < set(with_masks)
    assert set(GSNET.to_ours(with_masks)) == set(tiny_model.state_dict())


def test_fused_attention_weights_are_split(tiny_model: OpenVocabSegmenter):
    state = official_checkpoint(tiny_model)
    expected = GSNET.to_ours(state)
    stem = f"{CLIP}visual.transformer.resblocks.1.attn."
    parts = [state.pop(f"{stem}{part}_proj_weight") for part in "qkv"]
    assert not torch.equal(parts[0], parts[1])
    fused = GSNET.to_ours(state | {f"{stem}in_proj_weight": torch.cat(parts)})
    assert set(fused) == set(expected)
    assert all(torch.equal(fused[name], tensor) for name, tensor in expected.items())


def test_missing_tensor_is_named(tiny_model: OpenVocabSegmenter):
    state = official_checkpoint(tiny_model)
    del state["sem_seg_head.predictor.transformer.layers.1.attention.norm2.weight"]
    with pytest.raises(
        WeightsError, match=r"my\.pth: 1 of .* missing.*head\.aggregator\.layers\.1\.classes\.norm2\.weight"
    ):
        load_strictly(tiny_model, from_any_layout(state), "my.pth")


def test_unknown_tensor_is_named(tiny_model: OpenVocabSegmenter):
    state = official_checkpoint(tiny_model) | {"sem_seg_head.predictor.transformer.surprise": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"GSNet layout does not know 1 tensors.*transformer\.surprise"):
        from_any_layout(state)


def test_tensor_without_an_official_counterpart_is_named(tiny_model: OpenVocabSegmenter):
    with pytest.raises(WeightsError, match=r"head\.surprise has no counterpart in the GSNet layout"):
        GSNET.to_official(tiny_model.state_dict() | {"head.surprise": torch.zeros(1)})


def test_own_names_pass_unchanged(tiny_model: OpenVocabSegmenter):
    state = dict(tiny_model.state_dict())
    assert from_any_layout(state) is state
