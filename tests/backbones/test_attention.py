from __future__ import annotations

import open_clip
import pytest
import torch
from torch import nn

from ovrs.backbones.attention import SplitAttention, use_split_attention
from ovrs.zoo import split_fused_attention

WIDTH, HEADS = 24, 3


@pytest.fixture
def fused():
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    nn.init.normal_(attention.in_proj_bias)  # zero by default, which would hide a mixed-up bias
    nn.init.normal_(attention.out_proj.bias)
    return attention


@pytest.mark.parametrize("causal", [False, True])
def test_outputs_and_gradients_are_those_of_the_fused_module(fused, causal):
    split = SplitAttention.from_multihead(fused)
    mask = torch.full((7, 7), float("-inf")).triu(1) if causal else None
    x = torch.randn(2, 7, WIDTH, requires_grad=True)
    target = torch.randn(2, 7, WIDTH)

    results = []
    for module in (fused, split):
        x.grad = None
        y, _ = module(x, x, x, need_weights=False, attn_mask=mask)
        (y * target).sum().backward()
        results.append((y, x.grad))
    torch.testing.assert_close(results[0], results[1])
    grads = (split.q_proj_weight.grad, split.k_proj_weight.grad, split.v_proj_weight.grad)
    torch.testing.assert_close(torch.cat(grads), fused.in_proj_weight.grad)
    torch.testing.assert_close(split.in_proj_bias.grad, fused.in_proj_bias.grad)


def test_values_are_attention_to_oneself_alone(fused):
    split = SplitAttention.from_multihead(fused)
    x = torch.randn(2, 7, WIDTH)
    each = x.flatten(0, 1)[:, None]  # sequences of one token
    torch.testing.assert_close(split.values(x), fused(each, each, each)[0].view(2, 7, WIDTH))


def test_splitting_copies_the_weights(fused):
    split = SplitAttention.from_multihead(fused)
    before = split.q_proj_weight.detach().clone()
    nn.init.zeros_(fused.in_proj_weight)
    torch.testing.assert_close(split.q_proj_weight.detach(), before)
    assert before.abs().max() > 0


def test_split_module_loads_split_names(fused):
    state = split_fused_attention({f"attn.{name}": tensor for name, tensor in fused.state_dict().items()})
    holder = nn.Module()
    holder.attn = SplitAttention(WIDTH, HEADS)
    holder.load_state_dict(state)
    x = torch.randn(1, 5, WIDTH)
    torch.testing.assert_close(holder.attn(x)[0], fused(x, x, x)[0])


def test_every_block_of_both_towers_is_split_once():
    vision = {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"vocab_size": 50, "layers": 3, "width": 16, "heads": 2}
    clip = open_clip.CLIP(8, vision, text)
    assert use_split_attention(clip) is clip
    attentions = [module for name, module in clip.named_modules() if name.endswith(".attn")]
    assert len(attentions) == 5
    assert all(isinstance(attention, SplitAttention) for attention in attentions)
    use_split_attention(clip)
    assert attentions == [module for name, module in clip.named_modules() if name.endswith(".attn")]
