"""The training-free heads on tiny towers: what must be equal whatever the weights, and what options change."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode

from ovrs.errors import ConfigError, WeightsError
from ovrs.heads.blocks.clip_attention import Attention, attend
from ovrs.heads.blocks.proxy_attention import proxy_attention
from ovrs.heads.blocks.simfeatup import SimFeatUp
from ovrs.segmenter import OpenVocabSegmenter

CLASSES = ["roof|house", "road", "tree"]


@pytest.fixture
def free_cfg(tiny_cfg: CfgNode) -> CfgNode:
    """MaskCLIP without class bias on the tiny towers; the prior has CLIP's grid."""
    tiny_cfg.MODEL.SEM_SEG_HEAD.NAME = "ClipAttentionHead"
    tiny_cfg.MODEL.CLIP_ATTENTION.ATTENTION = "maskclip"
    tiny_cfg.MODEL.CLIP_ATTENTION.CLASS_BIAS = 0.0
    tiny_cfg.MODEL.PRIOR.ARCH_OPTIONS = ["patch_size", 8, "depth", 2, "embed_dim", 24, "num_heads", 2, "img_size", 32]
    tiny_cfg.TEST.SLIDING_WINDOW.ENABLED = False
    return tiny_cfg


@torch.inference_mode()
def logits(cfg: CfgNode, image: torch.Tensor, head: str = "ClipAttentionHead", **options: Any) -> torch.Tensor:
    cfg = cfg.clone()
    cfg.MODEL.SEM_SEG_HEAD.NAME = head
    for key, value in options.items():
        cfg.MODEL.CLIP_ATTENTION[key.upper()] = value
    torch.manual_seed(0)
    model = OpenVocabSegmenter(cfg).eval()
    return model.classify(model.embed(image), model.vocabulary(CLASSES))


@torch.inference_mode()
def expected(cfg: CfgNode, image: torch.Tensor, tokens: Any) -> torch.Tensor:
    """Cosines of a map that ``tokens(visual, last block's input)`` gives, after final norm and projection."""
    torch.manual_seed(0)
    model = OpenVocabSegmenter(cfg).eval()
    visual, block = model.vlm.visual, model.embed(image)["vlm"].last_block
    dense = visual.ln_post(tokens(visual.transformer.resblocks[-1], block.input))[:, 1:] @ visual.proj
    words = model.text(model.vocabulary(CLASSES)).per_word
    return (F.normalize(dense, dim=-1) @ words.T).movedim(-1, 1).unflatten(2, (4, 4))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_every_word_is_a_row(free_cfg: CfgNode, image: torch.Tensor):
    assert logits(free_cfg, image).shape == (2, 4, 4, 4)


def test_ordinary_attention_closed_by_the_block_is_the_untouched_clip(free_cfg: CfgNode, image: torch.Tensor):
    untouched = expected(free_cfg, image, lambda block, x: block(x))
    torch.testing.assert_close(logits(free_cfg, image, attention="vanilla", closing="block"), untouched)


def test_identity_attention_is_the_value_only_block_without_residual_and_mlp(free_cfg: CfgNode, image: torch.Tensor):
    values = expected(free_cfg, image, lambda block, x: block.attn.values(block.ln_1(x)))
    torch.testing.assert_close(logits(free_cfg, image), values)


def test_identity_attention_closed_by_the_block_is_the_dense_map_of_other_heads(free_cfg: CfgNode, image: torch.Tensor):
    found = logits(free_cfg, image, closing="block")
    torch.manual_seed(0)
    model = OpenVocabSegmenter(free_cfg).eval()
    dense = model.vlm(image, type(model.requests["vlm"])(dense="token_residual")).dense
    words = model.text(model.vocabulary(CLASSES)).per_word
    torch.testing.assert_close(found, torch.einsum("bchw,qc->bqhw", F.normalize(dense, dim=1), words))


def test_proxyclip_whose_patches_see_only_themselves_is_maskclip(
    free_cfg: CfgNode, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    eye = torch.eye(16).expand(2, -1, -1)
    monkeypatch.setattr("ovrs.heads.proxy_clip.proxy_attention", lambda *_: eye)
    torch.testing.assert_close(logits(free_cfg, image, "ProxyClipHead"), logits(free_cfg, image))


def test_proxyclip_mixes_the_values_of_every_attention_head_on_the_priors_grid(free_cfg: CfgNode):
    """As published, head by head; images that are not square keep rows and columns apart."""
    free_cfg.MODEL.SEM_SEG_HEAD.NAME = "ProxyClipHead"
    free_cfg.MODEL.VLM.INPUT_SIZE = free_cfg.MODEL.PRIOR.INPUT_SIZE = 0
    free_cfg.MODEL.VLM.POSITION_EMBEDDING = "runtime_dino"
    free_cfg.MODEL.PRIOR.ARCH_OPTIONS[1] = 4  # two of its patches to one of CLIP's
    image = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        model = OpenVocabSegmenter(free_cfg).eval()
        features, vocabulary = model.embed(image), model.vocabulary(CLASSES)
        block, prior = features["vlm"].last_block, features["prior"].dense
        values = block.qkv()[2][:, :, 1:].transpose(2, 3).unflatten(3, block.grid)  # [B, heads, d, 4, 6]
        enlarged = [F.interpolate(head, size=(8, 12), mode="bilinear") for head in values.unbind(1)]
        mixed = torch.stack([proxy_attention(prior) @ head.flatten(2).mT for head in enlarged], dim=1)
        dense = F.normalize(block.joint(block.close(mixed)), dim=-1)
        cosines = (dense @ model.text(vocabulary).per_word.T).movedim(-1, 1).unflatten(2, (8, 12))
        torch.testing.assert_close(model.classify(features, vocabulary), cosines)


@pytest.mark.parametrize("attention", get_args(Attention))
def test_without_bias_and_upsampler_only_the_attention_of_the_last_block_is_another(
    free_cfg: CfgNode, image: torch.Tensor, attention: str
):
    torch.manual_seed(0)
    with torch.inference_mode():
        model = OpenVocabSegmenter(free_cfg).eval()
        block, words = model.embed(image)["vlm"].last_block, model.text(model.vocabulary(CLASSES)).per_word
        tokens = block.joint(block.close(attend(attention, *block.qkv(), block.grid)))
        cosines = F.normalize(tokens, dim=-1) @ words.T  # [B, 1 + h * w, Q]
    maps = cosines[:, 1:].mT.unflatten(2, block.grid)
    torch.testing.assert_close(logits(free_cfg, image, attention=attention), maps)
    biased = maps - 0.3 * cosines[:, 0, :, None, None]
    torch.testing.assert_close(logits(free_cfg, image, attention=attention, class_bias=-0.3), biased)


def test_class_bias_shifts_whole_maps(free_cfg: CfgNode, image: torch.Tensor):
    shift = logits(free_cfg, image, class_bias=-0.3) - logits(free_cfg, image)
    torch.testing.assert_close(shift, shift[..., :1, :1].expand_as(shift))
    assert shift.abs().max() > 1e-3


def test_upsampler_gives_a_score_to_a_sixteenth_of_a_cell(free_cfg: CfgNode, image: torch.Tensor):
    assert logits(free_cfg, image, upsampler="jbu_stack").shape == (2, 4, 64, 64)


def test_upsampler_reads_what_else_a_released_file_holds_and_refuses_another_kind(free_cfg: CfgNode, tmp_path: Any):
    weights = SimFeatUp(16, "jbu_one").state_dict()
    released = {f"upsampler.{name}": value for name, value in weights.items()} | {"downsampler.w": torch.zeros(3)}
    torch.save({"state_dict": released, "epoch": 1}, tmp_path / "up.ckpt")
    free_cfg.MODEL.CLIP_ATTENTION.UPSAMPLER = "jbu_one"
    free_cfg.MODEL.CLIP_ATTENTION.UPSAMPLER_WEIGHTS = str(tmp_path / "up.ckpt")
    found = OpenVocabSegmenter(free_cfg).head.upsampler.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert not any(parameter.requires_grad for parameter in OpenVocabSegmenter(free_cfg).head.parameters())
    free_cfg.MODEL.CLIP_ATTENTION.UPSAMPLER = "jbu_stack"
    with pytest.raises(WeightsError, match=r"CLIP_ATTENTION.UPSAMPLER") as caught:
        OpenVocabSegmenter(free_cfg)
    assert "up.ckpt" in str(caught.value)


def test_weights_without_upsampler_are_refused(free_cfg: CfgNode):
    free_cfg.MODEL.CLIP_ATTENTION.UPSAMPLER_WEIGHTS = "up.ckpt"
    with pytest.raises(ConfigError, match=r"MODEL.CLIP_ATTENTION.UPSAMPLER is 'none'"):
        OpenVocabSegmenter(free_cfg)


def test_proxyclip_without_a_second_tower_says_which_key(free_cfg: CfgNode):
    free_cfg.MODEL.SEM_SEG_HEAD.NAME, free_cfg.MODEL.PRIOR.NAME = "ProxyClipHead", ""
    with pytest.raises(ConfigError, match=r"MODEL.PRIOR.NAME"):
        OpenVocabSegmenter(free_cfg)
