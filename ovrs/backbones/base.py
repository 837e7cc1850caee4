"""What every tower offers to the rest of the project."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ovrs.structures import FeatureRequest, ImageFeatures, PriorFeatures, TowerSpec


def trains(module: nn.Module) -> bool:
    """Whether any parameter of ``module`` wants a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())


class VLM(nn.Module, ABC):
    """A vision-language model: an image tower and a text tower with one joint space."""

    spec: TowerSpec

    @abstractmethod
    def encode_image(self, image: Tensor, request: FeatureRequest) -> ImageFeatures:
        """Return dense features and the asked-for block outputs of normalised [B, 3, H, W] images."""

    @abstractmethod
    def encode_text(self, sentences: list[str]) -> Tensor:
        """Return [N, C] embeddings of ``N`` sentences, not normalised."""

    @abstractmethod
    def image_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the image tower."""

    @abstractmethod
    def text_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the text tower."""


class Prior(nn.Module, ABC):
    """A self-supervised image tower without text."""

    spec: TowerSpec

    @abstractmethod
    def forward(self, image: Tensor, request: FeatureRequest) -> PriorFeatures:
        """Return final and asked-for block features of normalised [B, 3, H, W] images."""

    def train(self, mode: bool = True) -> Prior:
        """Set training mode; a frozen prior always stays in evaluation mode (no drop path)."""
        return super().train(mode and trains(self))
