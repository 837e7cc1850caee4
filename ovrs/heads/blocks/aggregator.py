"""Aggregation of cost maps over space and classes (CAT-Seg), between cost volume and decoder of its descendants."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from ovrs.heads.blocks.chunks import over_classes
from ovrs.heads.blocks.class_attention import ClassAttention, Kind
from ovrs.heads.blocks.efficient import ClassFusion, SpatialFusion
from ovrs.heads.blocks.swin import GuidedSwinPair


@dataclass(frozen=True)
class AggregatorOptions:
    """The aggregator's shape; configuration keys have the same names in capitals.

    Attributes:
        hidden_dim: channels of the cost maps.
        aggregator: ``swin`` (CAT-Seg, GSNet) or ``efficient`` (RSKT-Seg, DR-Seg).
        num_layers, num_heads: of either kind.
        pooling_train, pooling_test: pooling of class attention in training and in evaluation.
        window_size, class_attention, pad_classes_to: of ``swin``.
    """

    hidden_dim: int = 128
    aggregator: Literal["swin", "efficient"] = "swin"
    num_layers: int = 2
    num_heads: int = 4
    pooling_train: int = 2
    pooling_test: int = 1
    window_size: int = 12
    class_attention: Kind = "linear"
    pad_classes_to: int = 256

    @classmethod
    def from_node(cls, node: CfgNode) -> AggregatorOptions:
        """Read a head's group of configuration keys."""
        return cls(**{option.name: node[option.name.upper()] for option in fields(cls)})

    def check(self, key: str) -> None:
        """Refuse impossible values.

        Raises:
            ValueError: the message names the key below ``key``.
        """
        if self.aggregator not in ("swin", "efficient"):
            raise ValueError(f"{key}.AGGREGATOR must be 'swin' or 'efficient', got {self.aggregator!r}.")
        for name in ("num_heads", "window_size", "pooling_train", "pooling_test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{key}.{name.upper()} must be at least 1, got {getattr(self, name)}.")
        if self.hidden_dim % self.num_heads:
            raise ValueError(
                f"{key}.HIDDEN_DIM ({self.hidden_dim}) must be a multiple of {key}.NUM_HEADS ({self.num_heads})."
            )


SWIN = AggregatorOptions()  # CAT-Seg and GSNet
# RSKT-Seg and DR-Seg. RSKT-Seg's code ignores the four heads that its configuration names.
EFFICIENT = AggregatorOptions(aggregator="efficient", num_layers=3, num_heads=8, pooling_test=2)


class AggregatorLayer(nn.Module):
    """One layer: attention over space, where classes do not see each other, then over classes, where positions do not.

    Args:
        spatial: maps cost maps and appearance guidance to cost maps.
        classes: maps cost maps, text guidance and pooling to cost maps.
    """

    def __init__(self, spatial: nn.Module, classes: nn.Module) -> None:
        super().__init__()
        self.spatial, self.classes = spatial, classes

    def forward(self, x: Tensor, appearance: Tensor, text: Tensor, pooling: int, chunk: int) -> Tensor:
        """Refine cost maps.

        Args:
            x: [B, T, H, W, C] cost maps, channels last.
            appearance: [B, H, W, C] image guidance.
            text: [T, C] class guidance.
            pooling: of the class attention.
            chunk: classes per pass of the spatial part. The result does not depend on it.
        """
        x = over_classes(lambda part: self.spatial(part, appearance), chunk, x)
        return self.classes(x, text, pooling)


def build_layer(options: AggregatorOptions) -> AggregatorLayer:
    """Build one layer of the configured kind."""
    width, heads = options.hidden_dim, options.num_heads
    if options.aggregator == "efficient":
        return AggregatorLayer(SpatialFusion(width, heads), ClassFusion(width, heads))
    return AggregatorLayer(
        GuidedSwinPair(width, heads, options.window_size),
        ClassAttention(width, heads, options.class_attention, options.pad_classes_to),
    )


class CostAggregator(nn.Module):
    """Refines cost maps by layers of spatial and class attention, guided by image features and class embeddings.

    Args:
        joint_dim: width of image features and embeddings.
        options: shape of the layers.
        key: the head's group of configuration keys, for messages.
    """

    def __init__(self, joint_dim: int, options: AggregatorOptions, key: str) -> None:
        super().__init__()
        options.check(key)
        self.pooling_train, self.pooling_test = options.pooling_train, options.pooling_test
        self.appearance = nn.Conv2d(joint_dim, options.hidden_dim, 3, padding=1)
        self.text_guidance = nn.Linear(joint_dim, options.hidden_dim)
        self.layers = nn.ModuleList(build_layer(options) for _ in range(options.num_layers))

    def forward(self, x: Tensor, image: Tensor, text: Tensor, chunk: int) -> Tensor:
        """Refine the cost maps of one vocabulary.

        Args:
            x: [B, T, C, h, w] embedded cost maps.
            image: [B, joint, h, w] features that guide the spatial part.
            text: [T, joint] unit embeddings that guide the class part.
            chunk: classes per pass of the spatial part. The result does not depend on it.

        Returns:
            [B, T, C, h, w].
        """
        appearance = F.relu(self.appearance(image)).permute(0, 2, 3, 1)
        guidance = F.relu(self.text_guidance(text))
        pooling = self.pooling_train if self.training else self.pooling_test
        x = x.permute(0, 1, 3, 4, 2)
        for layer in self.layers:
            x = layer(x, appearance, guidance, pooling, chunk)
        return x.permute(0, 1, 4, 2, 3)
