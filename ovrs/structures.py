"""The values that cross module borders.

Notation used in all docstrings: ``B`` images, ``T`` classes, ``P`` prompts per class, ``C`` width of
the joint image-text space, ``W`` width of the VLM's image tower, ``D`` width of the prior.
Image tensors are NCHW.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from ovrs.vocabulary import Vocabulary

ROTATIONS = 4  # quarter turns of ``ImageFeatures.rotated``
IGNORE_LABEL = 255  # in label maps: pixels that count neither in training nor in evaluation

DenseMode = Literal["class_residual", "token_residual"]


@dataclass(frozen=True)
class TowerSpec:
    """The shape of a tower, which heads are built for.

    Attributes:
        width: channels of its block outputs, ``W`` or ``D``.
        depth: number of blocks.
        patch_size: side of a patch in pixels.
        input_size: side of the square it is fed with; 0 if images keep their size.
        joint_dim: width ``C`` of the joint image-text space; 0 for a prior.
    """

    width: int
    depth: int
    patch_size: int
    input_size: int
    joint_dim: int = 0


@dataclass(frozen=True)
class FeatureRequest:
    """What a head wants from the towers; asked for once, when the model is built.

    Attributes:
        vlm_blocks: indices (0-based) of VLM image blocks whose outputs are wanted.
        prior_blocks: indices of prior blocks whose outputs are wanted; ignored without ``uses_prior``.
        uses_prior: whether the head reads prior features at all.
        companion_blocks: indices of blocks of the companion CLIP whose outputs are wanted.
        rotations: whether dense maps of the image under the other three quarter turns are wanted too.
        dense: how the VLM's value-only last block closes its residual: ``class_residual`` adds the
            class token to every patch token (CAT-Seg, GSNet), ``token_residual`` adds each token's own
            input (HG-RSOVSSeg).
    """

    vlm_blocks: tuple[int, ...] = ()
    prior_blocks: tuple[int, ...] = ()
    uses_prior: bool = False
    companion_blocks: tuple[int, ...] = ()
    rotations: bool = False
    dense: DenseMode = "class_residual"


@dataclass(frozen=True)
class ImageFeatures:
    """What the CLIP image towers hand to a head.

    Attributes:
        dense: [B, C, h, w] patch features in the joint space, not normalised.
        blocks: {block index: [B, W, h, w]} residual stream after the asked-for blocks, un-normalised,
            class token removed.
        rotated: [B, ROTATIONS, C, h, w] dense maps of the image under 0, 90, 180 and 270 degrees, each turned back, so
            that a cell is the same place in all four; ``None`` where a head does not ask for them.
        companion: like ``blocks``, of the companion CLIP.
    """

    dense: Tensor
    blocks: dict[int, Tensor] = field(default_factory=dict)
    rotated: Tensor | None = None
    companion: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TextFeatures:
    """What the VLM's text tower hands to a head.

    Attributes:
        embeddings: [T, P, C], unit length along C.
        vocabulary: the classes and templates that they encode.
    """

    embeddings: Tensor
    vocabulary: Vocabulary


@dataclass(frozen=True)
class PriorFeatures:
    """What the self-supervised prior hands to a head.

    Attributes:
        dense: [B, D, h', w'] final-norm output of the last block, class token removed.
        blocks: {block index: [B, D, h', w']} final-norm outputs of the asked-for blocks.
    """

    dense: Tensor
    blocks: dict[int, Tensor] = field(default_factory=dict)
