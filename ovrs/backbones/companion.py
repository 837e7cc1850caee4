"""A second, frozen CLIP image tower that lends its block outputs to a decoder (RSKT-Seg's RemoteCLIP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ovrs.backbones.attention import use_split_attention
from ovrs.backbones.clip import build_clip, run_blocks
from ovrs.structures import TowerSpec


class ClipCompanion(nn.Module):
    """The image tower of an open_clip model, frozen; its text tower is not kept.

    Args:
        visual: an open_clip ViT; its attention modules are replaced.
        input_size: side of the square that images arrive in; 0 for any size.
    """

    @configurable
    def __init__(self, visual: nn.Module, input_size: int = 0) -> None:
        super().__init__()
        self.visual = use_split_attention(visual).requires_grad_(False)
        self.spec = TowerSpec(
            width=visual.conv1.out_channels,
            depth=len(visual.transformer.resblocks),
            patch_size=visual.conv1.kernel_size[0],
            input_size=input_size,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, *, load_weights: bool = True) -> dict[str, Any]:
        """Build the tower that ``MODEL.COMPANION`` describes and fill it."""
        node = cfg.MODEL.COMPANION
        clip, _ = build_clip(node, "MODEL.COMPANION", load_weights)
        return {"visual": clip.visual, "input_size": node.INPUT_SIZE}

    def forward(self, image: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return {index: [B, W, h, w]} outputs of the asked-for blocks of normalised [B, 3, H, W] images.

        Raises:
            ValueError: there is no such block.
        """
        return run_blocks(self.visual, image, blocks, min(max(blocks) + 1, self.spec.depth))[1]


def build_companion(cfg: CfgNode, *, load_weights: bool = True) -> ClipCompanion | None:
    """Build ``MODEL.COMPANION``, or return ``None`` where its architecture is empty."""
    return ClipCompanion(cfg, load_weights=load_weights) if cfg.MODEL.COMPANION.ARCH else None
