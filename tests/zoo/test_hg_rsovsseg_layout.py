import json
from pathlib import Path

import pytest
import torch

from ovrs.heads import HeadContext, HGRSOVSSegHead
from ovrs.heads.hg_rsovsseg import HGRSOVSSegOptions
from ovrs.structures import TowerSpec
from ovrs.zoo import LAYOUTS, split_fused_attention

LAYOUT = LAYOUTS["HG-RSOVSSeg"]
MANIFEST = Path(__file__).parents[1] / "golden" / "hg_rsovsseg_vitl14_manifest.json"
VITL14 = TowerSpec(width=1024, depth=24, patch_size=14, input_size=512, joint_dim=768)


@pytest.fixture
def official() -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in json.loads(MANIFEST.read_text()).items()}


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_every_official_tensor_has_one_counterpart_and_back(official):
    ours = LAYOUT.to_ours(official)
    blocks = 24 + 12
    assert len(official) == 491
    assert len(ours) == 491 + 2 * blocks + 1  # three attention weights for one, and the logit scale
    assert shapes(LAYOUT.to_official(ours)) == shapes(official)


@pytest.mark.parametrize("channels", [(128, 64), (256, 128, 64)])
def test_counterparts_are_the_heads_tensors_for_any_number_of_levels(channels):
    with torch.device("meta"):
        head = HGRSOVSSegHead(HGRSOVSSegOptions(guidance_channels=channels), {"vlm": VITL14}, HeadContext())
    state = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    exported = LAYOUT.to_official(state)
    assert f"neck.upsample.{len(channels) - 1}.bias" in exported
    assert f"decode_head.updecoder.{len(channels) - 1}.conv2.gn.weight" in exported
    ours = LAYOUT.to_ours(exported)
    assert shapes(ours) == {**shapes(state), "vlm.clip.logit_scale": ()}


def test_attention_weights_are_split_and_fused_in_order():
    name = "text_encoder.transformer.resblocks.0.attn.in_proj_weight"
    weight = torch.randn(12, 4)
    ours = LAYOUT.to_ours({name: weight})
    stem = "vlm.clip.transformer.resblocks.0.attn"
    for part, expected in zip("qkv", weight.chunk(3), strict=True):
        assert torch.equal(ours[f"{stem}.{part}_proj_weight"], expected)
    assert torch.equal(LAYOUT.to_official(ours)[name], weight)


def test_fused_attention_splits_and_fuses_again_to_the_same_tensors():
    width = 12
    state = {
        "blocks.0.attn.in_proj_weight": torch.randn(3 * width, width),
        "blocks.0.attn.in_proj_bias": torch.randn(3 * width),
        "proj": torch.randn(2, 2),
    }
    split = split_fused_attention(state)
    parts = [f"blocks.0.attn.{part}_proj_weight" for part in "qkv"]
    assert set(split) == {*parts, "blocks.0.attn.in_proj_bias", "proj"}
    assert torch.equal(torch.cat([split[name] for name in parts]), state["blocks.0.attn.in_proj_weight"])
    assert split["proj"] is state["proj"]
