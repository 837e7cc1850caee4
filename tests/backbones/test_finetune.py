from __future__ import annotations

import pytest
import torch
from torch import nn

from ovrs.backbones import DinoPrior, build_vlm
from ovrs.backbones.finetune import PRIOR_MODES, VLM_MODES, set_trainable
from ovrs.errors import ConfigError
from ovrs.structures import TowerRequest

PARTS = {
    "qv": ("q_proj_weight", "v_proj_weight"),
    "attention": (
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
        "in_proj_bias",
        "out_proj.weight",
        "out_proj.bias",
    ),
    "other": tuple(
        f"{layer}.{kind}" for layer in ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj") for kind in ("weight", "bias")
    ),
}


def attention(stem: str, blocks: int, parts: str) -> set[str]:
    return {f"{stem}transformer.resblocks.{i}.attn.{part}" for i in range(blocks) for part in PARTS[parts]}


def whole_blocks(stem: str, blocks: int) -> set[str]:
    other = {f"{stem}transformer.resblocks.{i}.{part}" for i in range(blocks) for part in PARTS["other"]}
    return attention(stem, blocks, "attention") | other


def expected(stem: str, blocks: int, outside: set[str]) -> dict[str, set[str]]:
    position = {f"{stem}positional_embedding"}
    return {
        "frozen": set(),
        "attention": attention(stem, blocks, "qv"),
        "attention_position": attention(stem, blocks, "qv") | position,
        "attention_all": attention(stem, blocks, "attention") | position,
        "position": position,
        "full": whole_blocks(stem, blocks),
        "all": whole_blocks(stem, blocks) | position | outside,
    }


IMAGE = expected(
    "visual.",
    4,
    {f"visual.{name}" for name in ("class_embedding", "conv1.weight", "proj")}
    | {f"visual.{norm}.{kind}" for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
)
TEXT = expected("", 2, {"token_embedding.weight", "text_projection", "ln_final.weight", "ln_final.bias"})


def trained(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_every_mode_is_tested():
    assert set(IMAGE) == set(TEXT) == set(VLM_MODES)


@pytest.mark.parametrize("mode", VLM_MODES)
def test_image_mode_trains_exactly_these_tensors(tiny_cfg, mode):
    tiny_cfg.MODEL.VLM.FINETUNE_IMAGE = mode
    tiny_cfg.MODEL.VLM.FINETUNE_TEXT = "frozen"
    assert trained(build_vlm(tiny_cfg).clip) == IMAGE[mode]


@pytest.mark.parametrize("mode", VLM_MODES)
def test_text_mode_trains_exactly_these_tensors(tiny_cfg, mode):
    tiny_cfg.MODEL.VLM.FINETUNE_IMAGE = "frozen"
    tiny_cfg.MODEL.VLM.FINETUNE_TEXT = mode
    assert trained(build_vlm(tiny_cfg).clip) == TEXT[mode]


def test_towers_are_set_apart(tiny_cfg):
    tiny_cfg.MODEL.VLM.FINETUNE_IMAGE = "position"
    tiny_cfg.MODEL.VLM.FINETUNE_TEXT = "attention"
    assert trained(build_vlm(tiny_cfg).clip) == IMAGE["position"] | TEXT["attention"]


def test_default_is_the_published_mode(tiny_vlm, tiny_prior):
    assert trained(tiny_vlm.clip) == IMAGE["attention"] | TEXT["attention"]
    assert trained(tiny_prior) == set()


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("frozen", set()),
        ("attention", {"pos_embed", *(f"blocks.{i}.attn.qkv.weight" for i in range(4))}),
        ("full", None),
    ],
)
def test_prior_mode_trains_exactly_these_tensors(tiny_cfg, mode, names):
    tiny_cfg.MODEL.PRIOR.FINETUNE = mode
    vit = DinoPrior(tiny_cfg).vit
    everything = {name for name, _ in vit.named_parameters()}
    assert trained(vit) == (everything if names is None else names)
    assert len(everything) > 40


@pytest.mark.parametrize("key", ["VLM.FINETUNE_IMAGE", "VLM.FINETUNE_TEXT"])
def test_unknown_mode_names_the_key_and_the_known_modes(tiny_cfg, key):
    tiny_cfg.MODEL.VLM[key.partition(".")[2]] = "atention"
    with pytest.raises(ConfigError, match=rf"MODEL\.{key} must be one of {', '.join(VLM_MODES)}, got 'atention'\."):
        build_vlm(tiny_cfg)


def test_unknown_mode_of_the_prior_names_the_key(tiny_cfg):
    tiny_cfg.MODEL.PRIOR.FINETUNE = "freeze"
    with pytest.raises(ConfigError, match=rf"PRIOR\.FINETUNE must be one of {', '.join(PRIOR_MODES)}, got 'freeze'"):
        DinoPrior(tiny_cfg)


def test_mode_that_matches_nothing_is_refused():
    linear = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="KEY is 'attention', but this tower has no parameter of that kind"):
        set_trainable(linear.named_parameters(), "attention", VLM_MODES, "KEY")


def test_frozen_tensors_stay_bit_for_bit_under_weight_decay(tiny_vlm):
    """All parameters go to the optimizer: what is frozen must not move, whoever builds the groups."""
    before = {name: tensor.clone() for name, tensor in tiny_vlm.clip.state_dict().items()}
    optimizer = torch.optim.AdamW(tiny_vlm.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        dense = tiny_vlm(torch.randn(1, 3, 32, 32), TowerRequest(dense="class_residual")).dense
        (dense.std() + tiny_vlm.encode_text(["sea", "road"]).std()).backward()
        optimizer.step()
    changed = {name for name, tensor in tiny_vlm.clip.state_dict().items() if not torch.equal(tensor, before[name])}
    # The value-only last block reads no query, so that tensor has no gradient at all.
    assert changed == (IMAGE["attention"] | TEXT["attention"]) - {"visual.transformer.resblocks.3.attn.q_proj_weight"}
