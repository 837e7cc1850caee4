"""A second, frozen CLIP image tower that lends its block outputs to a decoder (RSKT-Seg's RemoteCLIP)."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, configurable
from torch import nn

from ovrs.backbones.attention import use_split_attention
from ovrs.backbones.clip import build_clip
from ovrs.backbones.clip_image import ClipImageTower, spec_of


class ClipCompanion(ClipImageTower):
    """The image tower of an open_clip model, frozen; its text tower is not kept.

    Args:
        visual: an open_clip ViT; its attention modules are replaced.
        input_size: side of the square that images arrive in; 0 for any size.
    """

    @configurable
    def __init__(self, visual: nn.Module, input_size: int = 0) -> None:
        super().__init__()
        self.visual = use_split_attention(visual).requires_grad_(False)
        self.spec = spec_of(visual, input_size)

    @classmethod
    def from_config(cls, cfg: CfgNode, *, load_weights: bool = True) -> dict[str, Any]:
        """Build the tower that ``MODEL.COMPANION`` describes and fill it."""
        node = cfg.MODEL.COMPANION
        clip, _ = build_clip(node, "MODEL.COMPANION", load_weights)
        return {"visual": clip.visual, "input_size": node.INPUT_SIZE}
