"""Aggregation of cost maps over space and classes (CAT-Seg), between cost volume and decoder of its descendants."""

from __future__ import annotations

from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from ovrs.heads.blocks.chunks import over_classes
from ovrs.heads.blocks.class_attention import ClassAttention, Kind
from ovrs.heads.blocks.efficient import ClassFusion, SpatialFusion
from ovrs.heads.blocks.swin import GuidedSwinPair


class AggregatorOptions(Protocol):
    """What the aggregator reads of a head's options."""

    hidden_dim: int
    aggregator: Literal["swin", "efficient"]
    num_layers: int
    num_heads: int
    pooling_train: int
    pooling_test: int
    window_size: int
    class_attention: Kind
    pad_classes_to: int


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
    """

    def __init__(self, joint_dim: int, options: AggregatorOptions) -> None:
        super().__init__()
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
        if not self.layers:
            return x
        appearance = F.relu(self.appearance(image)).permute(0, 2, 3, 1)
        guidance = F.relu(self.text_guidance(text))
        pooling = self.pooling_train if self.training else self.pooling_test
        x = x.permute(0, 1, 3, 4, 2)
        for layer in self.layers:
            x = layer(x, appearance, guidance, pooling, chunk)
        return x.permute(0, 1, 4, 2, 3)
