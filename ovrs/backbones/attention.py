"""Self-attention with separate query, key and value weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn


class SplitAttention(nn.Module):
    """Drop-in for the ``nn.MultiheadAttention`` of open_clip's blocks.

    Query, key and value weights are parameters of their own, so that some of them can train while the
    others stay untouched; the bias stays one vector (q, k, v), as in the original GSNet checkpoints.
    Runs under scaled-dot-product attention and never forms attention maps.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            self.register_parameter(name, nn.Parameter(torch.empty(width, width)))
            nn.init.xavier_uniform_(getattr(self, name))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    @classmethod
    def from_multihead(cls, attention: nn.MultiheadAttention) -> SplitAttention:
        """Copy a fused, batch-first attention module."""
        split = cls(attention.embed_dim, attention.num_heads)
        with torch.no_grad():
            for part, weight in zip("qkv", attention.in_proj_weight.chunk(3), strict=True):
                getattr(split, f"{part}_proj_weight").copy_(weight)
            split.in_proj_bias.copy_(attention.in_proj_bias)
            split.out_proj.load_state_dict(attention.out_proj.state_dict())
        return split

    def values(self, x: Tensor) -> Tensor:
        """Return the output projection of the values alone, [..., W]: attention to oneself only."""
        bias = self.in_proj_bias.chunk(3)[2]
        return self.out_proj(F.linear(x, self.v_proj_weight, bias))

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of [B, L, W] tokens, each [B, heads, L, d]."""
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return tuple(
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for weight, bias in zip(weights, self.in_proj_bias.chunk(3), strict=True)
        )

    def project(self, mixed: Tensor) -> Tensor:
        """Return the output projection, [B, L, W], of [B, heads, L, d] values after attention."""
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend; [N, L, W] in and out. The signature is open_clip's call; only self-attention is meant."""
        return self.project(F.scaled_dot_product_attention(*self.qkv(query), attn_mask=attn_mask)), None


def use_split_attention(model: nn.Module) -> nn.Module:
    """Replace the attention of all open_clip blocks in ``model``, keeping weights; returns ``model``."""
    for module in model.modules():
        if isinstance(module, ResidualAttentionBlock) and isinstance(module.attn, nn.MultiheadAttention):
            module.attn = SplitAttention.from_multihead(module.attn)
    return model
