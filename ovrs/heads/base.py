"""The contract of a head, and how a configuration builds one."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ovrs.config.options import Options, read_options, register_options
from ovrs.errors import ConfigError, choose
from ovrs.scores import ScoreRule
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec
from ovrs.vocabulary import Vocabulary

if TYPE_CHECKING:
    from detectron2.config import CfgNode

HeadType = TypeVar("HeadType", bound="type[Head]")


@dataclass(frozen=True)
class HeadContext:
    """What every head is told beside its own options (``MODEL.SEM_SEG_HEAD``, ``VOCABULARY``, ``MODEL.WEIGHTS``).

    Attributes:
        prompts: templates per word.
        class_chunk: classes per pass of memory-hungry parts at inference; 0 chooses by memory.
        initial_probability: every class's probability before training; 0 keeps PyTorch's own bias.
        checkpoint: whether a checkpoint will fill the head, buffers included.
    """

    prompts: int = 1
    class_chunk: int = 0
    initial_probability: float = 0.0
    checkpoint: bool = False

    @property
    def initial_bias(self) -> float | None:
        """The logit of ``initial_probability``, or ``None``."""
        p = self.initial_probability
        return math.log(p / (1 - p)) if p else None


@dataclass(frozen=True)
class Artefact:
    """A file that a head reads when it is built and that is made from data first.

    Attributes:
        key: the configuration key that names the file.
        path: the key's value; empty where a configuration names none.
        command: what a person runs to make it, for messages.
        maker: ``module:function`` that makes it; called as ``function(cfg, dataset, path)``.
        stand_in: (key, value) pairs under which the head needs no file and does the same work, for measuring.
    """

    key: str
    path: str
    command: str
    maker: str
    stand_in: tuple[tuple[str, Any], ...] = ()

    @property
    def exists(self) -> bool:
        """Whether the file is there."""
        return bool(self.path) and Path(self.path).is_file()

    def make(self, cfg: CfgNode, dataset: str, path: str | Path) -> None:
        """Make the file from a data set.

        Args:
            cfg: the model's configuration.
            dataset: the training split; a registered name or what names a card.
            path: where to write it.
        """
        module, _, function = self.maker.partition(":")
        getattr(importlib.import_module(module), function)(cfg, dataset, path)


class Head(nn.Module, ABC):
    """Turns tower features into logits; knows neither towers nor data sets.

    A head is built as ``TheHead(options, towers, context)``: its own options, {tower name: shape} of the towers that
    exist (``vlm`` always; ``prior``, ``companion`` where they are configured), and what every head is told.

    Attributes:
        rule: how its logits become probabilities and labels.
    """

    group: ClassVar[str] = ""  # MODEL.<group> holds its options
    options: ClassVar[type[Options]] = Options
    rule: ScoreRule = ScoreRule()

    @classmethod
    def artefacts(cls, cfg: CfgNode) -> tuple[Artefact, ...]:
        """Return the files that must exist before this head, as configured, can be trained; none for most heads.

        A checkpoint brings their content, so a model that is loaded needs none of them.
        """
        return ()

    @abstractmethod
    def requests(self) -> dict[str, TowerRequest]:
        """Say what is wanted, by tower name. Called once, when the model is built; ``vlm`` is always there."""

    @abstractmethod
    def forward(self, features: Mapping[str, TowerFeatures], text: TextFeatures) -> Tensor:
        """Return [B, T, h, w] logits, or [B, Q, h, w] where ``rule.synonyms`` is ``max``; any number of classes.

        Permuting the classes permutes the logits.
        """


def register_head(group: str = "", options: type[Options] = Options) -> Callable[[HeadType], HeadType]:
    """Put a head class into Detectron2's head registry and its options into ``MODEL.<group>``.

    Args:
        group: name of its group of keys; empty for a head without options.
        options: the class of its options.
    """

    def register(head: HeadType) -> HeadType:
        head.group, head.options = group, options
        if group:
            register_options(group, options)
        return SEM_SEG_HEADS_REGISTRY.register(head)

    return register


def head_class(cfg: CfgNode) -> type[Head]:
    """Return the class that ``MODEL.SEM_SEG_HEAD.NAME`` names.

    Raises:
        ConfigError: there is none of that name.
    """
    known = [key for key, kind in SEM_SEG_HEADS_REGISTRY if isinstance(kind, type) and issubclass(kind, Head)]
    return SEM_SEG_HEADS_REGISTRY.get(choose("MODEL.SEM_SEG_HEAD.NAME", cfg.MODEL.SEM_SEG_HEAD.NAME, known))


def build_head(cfg: CfgNode, towers: Mapping[str, TowerSpec]) -> Head:
    """Build ``MODEL.SEM_SEG_HEAD`` for towers of the given shapes.

    Raises:
        ConfigError: unknown head, impossible options, or a tower that the head does not use: it would cost time and
            memory for nothing.
    """
    name, kind = cfg.MODEL.SEM_SEG_HEAD.NAME, head_class(cfg)
    options = read_options(kind.options, cfg.MODEL[kind.group], f"MODEL.{kind.group}") if kind.group else Options()
    context = HeadContext(
        prompts=len(Vocabulary.templates_of(cfg)),
        class_chunk=cfg.MODEL.SEM_SEG_HEAD.CLASS_CHUNK,
        initial_probability=cfg.MODEL.SEM_SEG_HEAD.INITIAL_PROBABILITY,
        checkpoint=bool(cfg.MODEL.WEIGHTS),
    )
    head = kind(options, towers, context)
    wanted = head.requests()
    for tower in sorted(set(wanted) - set(towers)):
        raise ConfigError(f"{name} as configured needs the tower {tower!r}; set {TOWER_KEYS[tower]}.")
    for tower in sorted(set(towers) - set(wanted) - {"vlm"} - OPTIONAL_TOWERS):
        raise ConfigError(
            f"{TOWER_KEYS[tower]} is set, but {name} as configured asks for nothing of the tower {tower!r}: switch on "
            f"the option that reads it, or set {TOWER_KEYS[tower]} to ''."
        )
    return head


# The key whose value decides whether a tower exists.
TOWER_KEYS = {"vlm": "MODEL.VLM.NAME", "prior": "MODEL.PRIOR.NAME", "companion": "MODEL.COMPANION.ARCH"}
# MODEL.PRIOR has a default, so a head that does not read it is no mistake.
OPTIONAL_TOWERS = {"prior"}
