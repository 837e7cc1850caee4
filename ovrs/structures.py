"""The values that cross module borders.

Notation of all docstrings: ``B`` images, ``T`` classes, ``Q`` words, ``P`` prompts per word, ``C`` width of the joint
image-text space, ``W`` width of a tower. Image tensors are NCHW.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

ROTATIONS = 4  # quarter turns of ``TowerFeatures.rotated``
IGNORE_LABEL = 255  # in label maps: pixels that count neither in training nor in evaluation

DenseForm = Literal["class_residual", "token_residual", "final_norm", "none"]


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
class TowerSpec:
    """The shape of a tower, which heads are built for.

    Attributes:
        width: channels of its block outputs, ``W``.
        depth: number of blocks.
        patch_size: side of a patch in pixels.
        input_size: side of the square it is fed with; 0 if images keep their size.
        joint_dim: width ``C`` of the joint image-text space; 0 for a tower without text.
    """

    width: int
    depth: int
    patch_size: int
    input_size: int
    joint_dim: int = 0


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

    def float(self) -> TowerFeatures:
        """Return the features in fp32, for heads that run at another precision than towers."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return TowerFeatures(**{name: _in_fp32(value) for name, value in values.items()})


@dataclass(frozen=True)
class TextFeatures:
    """What the text tower says about a vocabulary: one row per word.

    Attributes:
        embeddings: [Q, P, C], unit length along C.
        class_of: [Q] int64, the class that each word belongs to; in increasing order.
        classes: ``T``.
    """

    embeddings: Tensor
    class_of: Tensor
    classes: int

    @cached_property
    def per_class(self) -> Tensor:
        """[T, P, C] unit embeddings of the classes: the mean over a class's words, normalised again."""
        if self.classes == len(self.class_of):
            return self.embeddings
        sums = self.embeddings.new_zeros(self.classes, *self.embeddings.shape[1:])
        return F.normalize(sums.index_add(0, self.class_of, self.embeddings), dim=-1)

    @cached_property
    def mean(self) -> Tensor:
        """[T, C] unit embeddings of the classes: the mean over words, then over prompts, each normalised again."""
        return F.normalize(self.per_class.mean(dim=1), dim=-1)


def _in_fp32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    return {key: part.float() for key, part in value.items()} if isinstance(value, dict) else value
