"""The values that cross module borders.

Notation of all docstrings: ``B`` images, ``T`` classes, ``Q`` words, ``P`` prompts per word, ``C`` width of the joint
image-text space, ``W`` width of a tower. Image tensors are NCHW.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypedDict

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        last_block: whether the last block is wanted as a thing that the head runs itself, with its own attention.
        attention: indices of earlier blocks of a CLIP tower whose queries and keys are wanted.
        pixels: whether the images themselves, as the tower gets them, are wanted.
        concepts: whether the part that finds named concepts is wanted as a thing that the head asks itself.
        rotations: whether dense maps of the image under the other three quarter turns are wanted too.
    """

    blocks: tuple[int, ...] = ()
    dense: DenseForm = "final_norm"
    token: bool = False
    last_block: bool = False
    attention: tuple[int, ...] = ()
    pixels: bool = False
    concepts: bool = False
    rotations: bool = False


@dataclass(frozen=True)
class LastBlock(ABC):
    """The last block of a CLIP image tower before it is run, for heads that replace its attention.

    A head takes queries, keys and values, mixes the values with weights of its own, and has the block closed:
    ``joint(close(weights @ v))``. The plain block is ``close(softmax(q @ k.mT / d ** 0.5) @ v, residual=True)``.

    Attributes:
        input: [B, 1 + h * w, W] tokens that enter the block, class token first, then patches in row-major order.
        grid: (h, w).
    """

    input: Tensor
    grid: tuple[int, int]

    @abstractmethod
    def qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each [B, heads, 1 + h * w, d], not scaled."""

    @abstractmethod
    def close(self, mixed: Tensor, *, residual: bool = False) -> Tensor:
        """Return [B, L, W] tokens of mixed values.

        Args:
            mixed: [B, heads, L, d] values after attention.
            residual: ``False``: the output projection alone, with its bias (any ``L``). ``True``: the block's two
                residuals and its MLP, too; ``L`` is ``1 + h * w`` then.
        """

    @abstractmethod
    def joint(self, tokens: Tensor) -> Tensor:
        """Bring [..., W] tokens to the joint space, [..., C]: final norm and projection."""


@dataclass(frozen=True)
class TokenSequences:
    """Sentences token by token, for heads that read every token.

    Attributes:
        values: [N, L, C], not normalised.
        valid: bool [N, L]; ``False`` for padding.
    """

    values: Tensor
    valid: Tensor

    def __getitem__(self, rows: Tensor | slice | list[int]) -> TokenSequences:
        """Return some of the sentences."""
        return TokenSequences(self.values[rows], self.valid[rows])

    @property
    def mean(self) -> Tensor:
        """[N, C] mean over a sentence's tokens."""
        weights = self.valid[..., None].to(self.values.dtype)
        return (self.values * weights).sum(dim=1) / weights.sum(dim=1)


@dataclass(frozen=True)
class FoundConcepts:
    """What a :class:`ConceptFinder` found of ``N`` prompts in one image, before anything is drawn.

    Attributes:
        presence: [N] logits that the concept is in the image at all.
        confidence: [N, K] logits of K candidate instances.
        queries: [N, K, W] the candidates.
        memory: [N, h * w, W] the image as each prompt sees it.
        prompts: the prompts.
    """

    presence: Tensor
    confidence: Tensor
    queries: Tensor
    memory: Tensor
    prompts: TokenSequences

    def choose(self, rows: Sequence[int], candidates: int) -> FoundConcepts:
        """Return some prompts with as many of their candidates, the most confident first."""
        confidence, best = self.confidence[rows].topk(candidates)
        queries = self.queries[rows].gather(1, best[..., None].expand(-1, -1, self.queries.shape[-1]))
        return FoundConcepts(self.presence[rows], confidence, queries, self.memory[rows], self.prompts[rows])


@dataclass(frozen=True)
class ConceptFinder(ABC):
    """What a model that finds named concepts (SAM 3) knows of images before it is asked for any.

    A head asks in two steps, so that it draws only what is there: ``draw(image, find(image, prompts))``.

    Attributes:
        maps: [B, W, h, w] features of the images, from fine to coarse.
        size: (height, width) of the images as they came to the tower.
    """

    maps: tuple[Tensor, ...]
    size: tuple[int, int]

    @abstractmethod
    def find(self, image: int, prompts: TokenSequences) -> FoundConcepts:
        """Look for every prompt in an image of the batch."""

    @abstractmethod
    def draw(self, image: int, found: FoundConcepts) -> tuple[Tensor, Tensor]:
        """Return logits at the resolution of the finest map: [N, h, w] of the concepts, [N, K, h, w] of candidates."""


@dataclass(frozen=True)
class TowerFeatures:
    """What one tower says about images.

    Attributes:
        dense: [B, C or W, h, w] patch features, not normalised; ``None`` where ``TowerRequest.dense`` is ``none``.
        blocks: {block index: [B, W, h, w]} outputs of the asked-for blocks, class token removed: the residual stream
            of a CLIP tower, the final-norm output of a prior.
        token: [B, C or W] class token after the final norm (and projection), or ``None``.
        last_block: see :class:`LastBlock`; or ``None``.
        attention: {block index: (queries, keys)} of the asked-for blocks, each [B, heads, 1 + h * w, d], not scaled.
        pixels: [B, 3, H, W] normalised images, or ``None``.
        concepts: see :class:`ConceptFinder`; or ``None``.
        rotated: [B, ROTATIONS, C, h, w] dense maps under 0, 90, 180 and 270 degrees, each turned back, so that a cell
            is the same place in all four; or ``None``.
    """

    dense: Tensor | None = None
    blocks: dict[int, Tensor] = field(default_factory=dict)
    token: Tensor | None = None
    last_block: LastBlock | None = None
    attention: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    pixels: Tensor | None = None
    concepts: ConceptFinder | None = None
    rotated: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> TowerFeatures:
        """Return the features with every tensor changed."""
        tensors = {name: getattr(self, name) for name in ("dense", "token", "pixels", "rotated")}
        return TowerFeatures(
            **{name: value if value is None else change(value) for name, value in tensors.items()},
            blocks={index: change(block) for index, block in self.blocks.items()},
            attention={index: (change(q), change(k)) for index, (q, k) in self.attention.items()},
            last_block=self.last_block and replace(self.last_block, input=change(self.last_block.input)),
            concepts=self.concepts and replace(self.concepts, maps=tuple(map(change, self.concepts.maps))),
        )

    def float(self) -> TowerFeatures:
        """Return the features in fp32, for heads that run at another precision than towers."""
        return self.map(Tensor.float)


@dataclass(frozen=True)
class TextFeatures:
    """What the text tower says about a vocabulary: one row per word.

    Attributes:
        embeddings: [Q, P, C], unit length along C.
        class_of: [Q] int64, the class that each word belongs to; in increasing order.
        classes: ``T``.
        tokens: the ``Q * P`` sentences token by token, of a text tower whose heads read them; or ``None``.
    """

    embeddings: Tensor
    class_of: Tensor
    classes: int
    tokens: TokenSequences | None = None

    @cached_property
    def per_class(self) -> Tensor:
        """[T, P, C] unit embeddings of the classes: the mean over a class's words, normalised again."""
        if self.classes == len(self.class_of):
            return self.embeddings
        sums = self.embeddings.new_zeros(self.classes, *self.embeddings.shape[1:])
        return F.normalize(sums.index_add(0, self.class_of, self.embeddings), dim=-1)

    @cached_property
    def per_word(self) -> Tensor:
        """[Q, C] unit embeddings of the words: the mean over prompts, normalised again."""
        return F.normalize(self.embeddings.mean(dim=1), dim=-1)

    @cached_property
    def mean(self) -> Tensor:
        """[T, C] unit embeddings of the classes: the mean over words, then over prompts, each normalised again."""
        return F.normalize(self.per_class.mean(dim=1), dim=-1)
