"""What every tower offers to the rest of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import torch
from fvcore.common.registry import Registry
from torch import Tensor, nn

from ovrs.errors import ConfigError, choose
from ovrs.structures import ROTATIONS, DenseForm, TokenSequences, TowerFeatures, TowerRequest, TowerSpec

VLM_REGISTRY = Registry("VLM")
PRIOR_REGISTRY = Registry("PRIOR")


def any_trains(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether any of the parameters wants a gradient."""
    return any(parameter.requires_grad for parameter in parameters)


class Tower(nn.Module, ABC):
    """An image tower: normalised images in, the features that a head asks for out.

    A tower implements :meth:`encode`; calling it also gives the quarter turns.

    Attributes:
        spec: its shape.
        dense_forms: the dense maps that it can give.
        short_weights: as :class:`ovrs.heads.Head` has it.
        has_last_block: whether it can hand out its last block (:class:`ovrs.structures.LastBlock`).
        has_concepts: whether it finds named concepts (:class:`ovrs.structures.ConceptFinder`).
    """

    spec: TowerSpec
    dense_forms: ClassVar[tuple[DenseForm, ...]] = ("final_norm", "none")
    has_last_block: ClassVar[bool] = False
    has_concepts: ClassVar[bool] = False
    short_weights: ClassVar[bool] = False

    @abstractmethod
    def encode(self, image: Tensor, request: TowerRequest) -> TowerFeatures:
        """Return what ``request`` asks for, rotations aside, of normalised [B, 3, H, W] images."""

    def forward(self, image: Tensor, request: TowerRequest) -> TowerFeatures:
        """Return what ``request`` asks for of normalised [B, 3, H, W] images.

        Raises:
            ConfigError: the tower cannot give it.
        """
        self.check(request)
        features = self._rotated(image, request) if request.rotations else self.encode(image, request)
        return replace(features, pixels=image) if request.pixels else features

    def check(self, request: TowerRequest) -> None:
        """Raise a ``ConfigError`` if the tower cannot give what ``request`` asks for."""
        choose(f"TowerRequest.dense of {type(self).__name__}", request.dense, self.dense_forms)
        unknown = [index for index in (*request.blocks, *request.attention) if not 0 <= index < self.spec.depth]
        if unknown:
            raise ConfigError(
                f"blocks {unknown} of {type(self).__name__} asked for; a tower of {self.spec.depth} has "
                f"0..{self.spec.depth - 1} to offer."
            )
        if (request.last_block or request.attention) and not self.has_last_block:
            raise ConfigError(f"{type(self).__name__} does not hand out its last block or attention; CLIP towers do.")
        if request.concepts and not self.has_concepts:
            raise ConfigError(f"{type(self).__name__} finds no named concepts; set MODEL.VLM.NAME to 'Sam3VLM'.")
        if request.rotations and request.dense == "none":
            raise ConfigError("TowerRequest.rotations turns dense maps, but TowerRequest.dense is 'none'.")

    def image_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that image features depend on."""
        return list(self.parameters())

    def equal_blocks(self) -> list[nn.Module]:
        """Return the blocks of one kind that most of the time is spent in; they may be compiled."""
        return []

    def train(self, mode: bool = True) -> Tower:
        """Set training mode; a frozen tower always stays in evaluation mode (no dropout, no drop path)."""
        return super().train(mode and any_trains(self.parameters()))

    def _rotated(self, image: Tensor, request: TowerRequest) -> TowerFeatures:
        """Encode images as they are and turned by 90, 180 and 270 degrees (counter-clockwise).

        Square images make one batch of all turns; others one per orientation. The dense maps are turned back, so that
        all four describe the same cell; everything else is that of the image as it is.
        """
        count, square = len(image), image.shape[-2] == image.shape[-1]
        straight = replace(request, rotations=False)
        only_dense = TowerRequest(dense=request.dense)
        dense = {}
        for turns in [tuple(range(ROTATIONS))] if square else [(0, 2), (1, 3)]:
            batch = torch.cat([image.rot90(turn, (2, 3)) for turn in turns])
            features = self.encode(batch, straight if 0 in turns else only_dense)
            for turn, part in zip(turns, features.dense.split(count), strict=True):
                dense[turn] = part.rot90(-turn, (2, 3))
            if 0 in turns:
                first = features.map(lambda tensor: tensor[:count])
        rotated = torch.stack([dense[turn] for turn in range(ROTATIONS)], dim=1)
        return replace(first, dense=rotated[:, 0], rotated=rotated)


class VLM(Tower):
    """A vision-language model: an image tower and a text tower with one joint space.

    As a tower it is its image tower. Its dense maps lie in the joint space.
    """

    dense_forms = ("class_residual", "token_residual", "none")

    @abstractmethod
    def encode_text(self, sentences: list[str]) -> Tensor | TokenSequences:
        """Return [N, C] embeddings of ``N`` sentences, not normalised; or their tokens, all equally many."""

    @abstractmethod
    def image_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the image tower."""

    @abstractmethod
    def text_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the text tower."""
