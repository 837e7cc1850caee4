"""The values that cross module borders.

Notation used in all docstrings: ``B`` images, ``T`` classes, ``P`` prompts per class, ``C`` width of
the joint image-text space, ``W`` width of the VLM's image tower, ``D`` width of the prior.
Image tensors are NCHW.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ovrs.vocabulary import Vocabulary

ROTATIONS = 4  # quarter turns of ``ImageFeatures.rotated``
IGNORE_LABEL = 255  # in label maps: pixels that count neither in training nor in evaluation

DenseMode = Literal["class_residual", "token_residual"]
DenseForm = Literal["class_residual", "token_residual", "final_norm", "none"]


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


class Sample(TypedDict, total=False):
    """One image on its way through the project: a dict, as Detectron2's mappers, loaders and evaluators want it.

    Attributes:
        image: uint8 or float [3, h, w], RGB, 0..255.
        sem_seg: int64 [h, w] class indices, ``IGNORE_LABEL`` ignored; in training and scoring.
        dataset: a registered data set, whose classes are the vocabulary.
        vocabulary: class strings, instead of ``dataset``.
        labelled_classes: bool [T], the classes that the image's own data set labels.
        height, width: size of the result; the image's own where they are missing.
        file_name: for messages.
    """

    image: Tensor
    sem_seg: Tensor
    dataset: str
    vocabulary: Sequence[str]
    labelled_classes: Tensor
    height: int
    width: int
    file_name: str


@dataclass(frozen=True)
class TowerRequest:
    """What a head wants of one tower; asked for once, when the model is built.

    Attributes:
        blocks: indices (0-based) of blocks whose outputs are wanted.
        dense: form of the dense map. Of a vision-language model: how its value-only last block closes its residual,
            ``class_residual`` adds the class token to every patch token (CAT-Seg, GSNet), ``token_residual`` each
            token's own input (HG-RSOVSSeg). ``final_norm``: the last block's output after the final norm, at the
            tower's own width (priors). ``none``: no dense map, and no block beyond the last wanted one is run.
        token: whether the image's class token is wanted.
        last_input: whether the last block's input tokens, and what else that block needs to run, are wanted.
        rotations: whether dense maps of the image under the other three quarter turns are wanted too.
    """

    blocks: tuple[int, ...] = ()
    dense: DenseForm = "final_norm"
    token: bool = False
    last_input: bool = False
    rotations: bool = False


@dataclass(frozen=True)
class TowerFeatures:
    """What one tower says about images.

    Attributes:
        dense: [B, C or W, h, w] patch features, not normalised; ``None`` where ``TowerRequest.dense`` is ``none``.
        blocks: {block index: [B, W, h, w]} outputs of the asked-for blocks, class token removed: the residual stream
            of a vision-language model, the final-norm output of a prior.
        token: [B, C or W] class token after the final norm (and projection), or ``None``.
        last_input: [B, 1 + h * w, W] tokens that enter the last block, class token first, or ``None``.
        rotated: [B, ROTATIONS, C, h, w] dense maps under 0, 90, 180 and 270 degrees, each turned back, so that a cell
            is the same place in all four; or ``None``.
    """

    dense: Tensor | None = None
    blocks: dict[int, Tensor] = field(default_factory=dict)
    token: Tensor | None = None
    last_input: Tensor | None = None
    rotated: Tensor | None = None


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
