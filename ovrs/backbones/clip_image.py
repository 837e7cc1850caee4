"""The image tower of an open_clip model: dense maps, block outputs, class token, last block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ovrs.backbones.base import Tower
from ovrs.backbones.position_embedding import PositionTables
from ovrs.structures import LastBlock, TowerFeatures, TowerRequest, TowerSpec


class ClipImageTower(Tower):
    """What every tower that runs an open_clip ViT shares; its attention modules are ``SplitAttention``.

    The dense map lies in the joint space: the last block runs value-only (each token attends to itself), then the
    final norm and the projection are applied to every patch token. That is MaskCLIP's idea (Zhou et al., ECCV 2022)
    with the block's residual and MLP kept, as CAT-Seg has it.

    Attributes:
        visual: the ViT.
        recompute: whether training keeps only the blocks' outputs and computes the rest again for the gradient.
    """

    visual: VisionTransformer
    recompute = False
    dense_forms = ("class_residual", "token_residual", "none")
    has_last_block = True
    short_weights = True

    def __init__(self) -> None:
        super().__init__()
        self._positions = PositionTables()

    def equal_blocks(self) -> list[nn.Module]:
        """Return the residual blocks of the image tower."""
        return list(self.visual.transformer.resblocks)

    def encode(self, image: Tensor, request: TowerRequest) -> TowerFeatures:
        """Return what is asked for, rotations aside, of normalised [B, 3, H, W] images.

        H and W are at least one patch; rows and columns beyond the last whole patch are not seen. The class token is
        that of the whole tower, [B, C]; block outputs are the residual stream.
        """
        visual = self.visual
        blocks = visual.transformer.resblocks
        last = len(blocks) - 1
        dense, plain = request.dense != "none", request.token or last in request.blocks
        whole = dense or plain or request.last_block
        stop = last if whole else max((*request.blocks, *request.attention), default=-1) + 1

        x, grid = self._embed(image)
        outputs, attention = {}, {}
        for index in range(stop):
            if index in request.attention:
                attention[index] = blocks[index].attn.qkv(blocks[index].ln_1(x))[:2]
            x = self._run(blocks[index], x)
            if index in request.blocks:
                outputs[index] = as_map(x[:, 1:], grid)
        last_block = ClipLastBlock(x, grid, visual) if request.last_block else None
        dense_map = self._dense_map(x, grid, request.dense == "class_residual") if dense else None
        token = None
        if plain:
            x = self._run(blocks[last], x)
            if last in request.blocks:
                outputs[last] = as_map(x[:, 1:], grid)
            token = _joint(visual, x[:, 0]) if request.token else None
        return TowerFeatures(dense_map, outputs, token, last_block, attention)

    def _embed(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the [B, 1 + h * w, W] tokens that enter the first block, and the grid (h, w)."""
        visual = self.visual
        x = visual.conv1(image)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)
        token = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([token, x], dim=1) + self._positions(visual.positional_embedding, grid, x.dtype)
        return visual.ln_pre(x), grid

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        again = self.recompute and torch.is_grad_enabled()
        return checkpoint(block, x, use_reentrant=False) if again else block(x)

    def _dense_map(self, x: Tensor, grid: tuple[int, int], class_residual: bool) -> Tensor:
        visual = self.visual
        block = visual.transformer.resblocks[-1]
        residual = x[:, :1] if class_residual else x[:, 1:]
        y = residual + block.ls_1(block.attn.values(block.ln_1(x[:, 1:])))
        y = y + block.ls_2(block.mlp(block.ln_2(y)))
        return as_map(_joint(visual, y), grid)


@dataclass(frozen=True)
class ClipLastBlock(LastBlock):
    """The last block of an open_clip ViT."""

    visual: VisionTransformer

    def qkv(self) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        block = self.visual.transformer.resblocks[-1]
        return block.attn.qkv(block.ln_1(self.input))

    def close(self, mixed: Tensor, *, residual: bool = False) -> Tensor:  # noqa: D102
        block = self.visual.transformer.resblocks[-1]
        x = block.attn.project(mixed)
        if not residual:
            return x
        x = self.input + block.ls_1(x)
        return x + block.ls_2(block.mlp(block.ln_2(x)))

    def joint(self, tokens: Tensor) -> Tensor:  # noqa: D102
        return _joint(self.visual, tokens)


def spec_of(visual: VisionTransformer, input_size: int) -> TowerSpec:
    """Return the shape of an open_clip ViT that is fed with squares of ``input_size`` pixels."""
    return TowerSpec(
        width=visual.conv1.out_channels,
        depth=len(visual.transformer.resblocks),
        patch_size=visual.conv1.kernel_size[0],
        input_size=input_size,
        joint_dim=visual.proj.shape[1],
    )


def has_dense_form(visual: nn.Module) -> bool:
    """Whether an image tower is a plain ViT with a class token, CLIP's own blocks and a projection."""
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.proj is not None
        and all(isinstance(block, ResidualAttentionBlock) for block in visual.transformer.resblocks)
    )


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, h * w, W] -> [B, W, h, w]."""
    return tokens.transpose(1, 2).unflatten(2, grid).contiguous()


def _joint(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    return visual.ln_post(tokens) @ visual.proj
