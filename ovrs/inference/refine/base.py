"""The contract of post-processors: they change the scores of images, whichever head made them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ovrs.config.options import Options, read_options, register_options
from ovrs.errors import choose
from ovrs.inference.views import ScoreMap
from ovrs.scores import ScoreRule
from ovrs.structures import TowerFeatures, TowerRequest, TowerSpec

if TYPE_CHECKING:
    from detectron2.config import CfgNode

REFINERS: dict[str, type[Refiner]] = {}


class Refiner(ABC):
    """Changes the scores of the images of one call of the model, after their views were put together.

    Attributes:
        requests: what it wants of towers that see whole images.
        joint: whether the images of a call decide together, so that a result depends on which they are. One that takes
            every image for itself works on the windows of a raster as well.
    """

    options: ClassVar[type[Options]]
    requests: Mapping[str, TowerRequest] = {}
    joint: ClassVar[bool] = True

    def __init__(self, options: Options, towers: Mapping[str, TowerSpec]) -> None:
        self.settings = options

    @abstractmethod
    def guide(self, images: Sequence[Tensor], look: Callable[[str, Tensor], TowerFeatures]) -> Any:
        """Return what is needed of normalised [3, h, w] images; it does not depend on the vocabulary.

        Args:
            images: of any sizes.
            look: from a tower's name and [B, 3, H, W] images to what :attr:`requests` asks of it.
        """

    def rule(self, rule: ScoreRule) -> ScoreRule:
        """Return what the refined scores mean, given the meaning of the head's."""
        return rule

    @abstractmethod
    def __call__(self, maps: Sequence[ScoreMap], guide: Any, rule: ScoreRule) -> list[ScoreMap]:
        """Return refined scores.

        Args:
            maps: of all images of the call.
            guide: what :meth:`guide` returned for them.
            rule: the head's.
        """


def register_refiner(name: str, options: type[Options]) -> Callable[[type[Refiner]], type[Refiner]]:
    """Make a refiner a value of ``TEST.REFINE``, and its options the group ``MODEL.<NAME>``."""

    def register(kind: type[Refiner]) -> type[Refiner]:
        register_options(name.upper(), options)
        kind.options = options
        REFINERS[name] = kind
        return kind

    return register


def build_refiner(cfg: CfgNode, towers: Mapping[str, TowerSpec]) -> Refiner | None:
    """Build ``TEST.REFINE`` for towers of the given shapes; ``None`` where it is empty.

    Raises:
        ConfigError: an unknown name, impossible options, or a missing tower.
    """
    name = cfg.TEST.REFINE
    if not name:
        return None
    kind = REFINERS[choose("TEST.REFINE", name, ("", *REFINERS))]
    return kind(read_options(kind.options, cfg.MODEL[name.upper()], f"MODEL.{name.upper()}"), towers)


def with_scores(found: ScoreMap, scores: Tensor) -> ScoreMap:
    """Return a score map with other scores of the same image."""
    return replace(found, scores=scores)
