"""The contract of a head, and how a configuration builds one."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import torch
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from ovrs.config.options import Options, read_options, register_options
from ovrs.errors import ConfigError, choose
from ovrs.heads.quantities import Pass, Quantity
from ovrs.scores import ScoreRule
from ovrs.structures import TextFeatures, TowerFeatures, TowerRequest, TowerSpec
from ovrs.vocabulary import Vocabulary

if TYPE_CHECKING:
    from detectron2.config import CfgNode

HeadType = TypeVar("HeadType", bound="type[Head]")

# The key whose value decides whether a tower exists.
TOWER_KEYS = {"vlm": "MODEL.VLM.NAME", "prior": "MODEL.PRIOR.NAME", "companion": "MODEL.COMPANION.ARCH"}
# MODEL.PRIOR has a default, so a head that does not read it is no mistake.
OPTIONAL_TOWERS = {"prior"}
# How the logits that a loss trains become probabilities.
ACTIVATIONS: dict[str, Literal["sigmoid", "softmax"]] = {"bce": "sigmoid", "ce": "softmax"}
LOG_PERIOD = 20  # iterations between two lines of the training log


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
        name: the file's usual name.
        command: what a person runs to make it, for messages.
        maker: ``module:function`` that makes it; called as ``function(cfg, dataset, path)``.
        stand_in: alternating keys and values under which the head needs no file and does the same work, for measuring;
            ``cfg.merge_from_list`` takes them.
    """

    key: str
    path: str
    name: str
    command: str
    maker: str
    stand_in: tuple[Any, ...] = ()

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
        needs_training: whether it says nothing of use before a checkpoint fills it.
        short_weights: whether autocast alone decides how its linear layers and convolutions read their weights, but
            for blocks with ``exact_weights``; copies in a short type may then stand in for them at inference.
    """

    group: ClassVar[str] = ""  # MODEL.<group> holds its options
    options: ClassVar[type[Options]] = Options
    rule: ScoreRule = ScoreRule()
    needs_training: ClassVar[bool] = True
    short_weights: ClassVar[bool] = False

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

    def quantities(self) -> dict[str, Quantity]:
        """Return by name what this head, as configured, can show of its inside; see :mod:`ovrs.heads.quantities`.

        Its scores and what its towers say can be shown of any head, see :func:`all_quantities`.
        """
        return {}


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
        SEM_SEG_HEADS_REGISTRY.register(head)
        return head

    return register


def list_heads() -> list[str]:
    """Return the names that ``MODEL.SEM_SEG_HEAD.NAME`` can have."""
    return sorted(name for name, kind in SEM_SEG_HEADS_REGISTRY if isinstance(kind, type) and issubclass(kind, Head))


def head_class(cfg: CfgNode) -> type[Head]:
    """Return the class that ``MODEL.SEM_SEG_HEAD.NAME`` names.

    Raises:
        ConfigError: there is none of that name.
    """
    return SEM_SEG_HEADS_REGISTRY.get(choose("MODEL.SEM_SEG_HEAD.NAME", cfg.MODEL.SEM_SEG_HEAD.NAME, list_heads()))


def build_head(cfg: CfgNode, towers: Mapping[str, TowerSpec]) -> Head:
    """Build ``MODEL.SEM_SEG_HEAD`` for towers of the given shapes.

    Raises:
        ConfigError: unknown head, impossible options, a tower that is missing, or one that the head does not use: it
            would cost time and memory for nothing.
    """
    name, kind = cfg.MODEL.SEM_SEG_HEAD.NAME, head_class(cfg)
    options = read_options(kind.options, cfg.MODEL[kind.group], f"MODEL.{kind.group}") if kind.group else Options()
    node = cfg.MODEL.SEM_SEG_HEAD
    if not 0 <= node.INITIAL_PROBABILITY < 1:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.INITIAL_PROBABILITY must be at least 0 and below 1, got {node.INITIAL_PROBABILITY}."
        )
    if node.CLASS_CHUNK < 0:
        raise ConfigError(f"MODEL.SEM_SEG_HEAD.CLASS_CHUNK must be at least 0, got {node.CLASS_CHUNK}.")
    context = HeadContext(
        prompts=len(Vocabulary.templates_of(cfg)),
        class_chunk=node.CLASS_CHUNK,
        initial_probability=node.INITIAL_PROBABILITY,
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
    if head.needs_training:  # the others have a rule of their own
        head.rule = replace(head.rule, activation=ACTIVATIONS.get(cfg.MODEL.LOSS.NAME, head.rule.activation))
    return head


# ---------------------------------------------------------------------- towers and blocks, for options that name them


def needed(towers: Mapping[str, TowerSpec], name: str, wanted_by: str) -> TowerSpec:
    """Return a tower.

    Raises:
        ConfigError: it does not exist; the message names the option that wants it and the key that gives it.
    """
    if name not in towers:
        raise ConfigError(
            f"{wanted_by} is on, but {TOWER_KEYS[name]} is empty: name a tower there, or turn the option off."
        )
    return towers[name]


def blocks_of(tower: TowerSpec, configured: Sequence[int], levels: int, key: str) -> tuple[int, ...]:
    """Return the blocks of a tower that guide a decoder, shallow to deep as configured or evenly spread.

    Evenly spread are 3 and 7 of 12, 7 and 15 of 24, 5, 11 and 17 of 24. The last block is never among them.

    Raises:
        ConfigError: ``configured``, the value of ``key``, is not one block below the last per level.
    """
    depth = tower.depth
    blocks = tuple(configured) or tuple((level + 1) * depth // (levels + 1) - 1 for level in range(levels))
    if len(blocks) != levels or not all(0 <= block < depth - 1 for block in blocks):
        raise ConfigError(
            f"{key} must name {levels} blocks, one per decoder level, between 0 and {depth - 2}; got {list(blocks)}."
        )
    return blocks


def grid_ratio(towers: Mapping[str, TowerSpec], name: str) -> Fraction:
    """Return how many cells of a tower lie along the side of one cell of the vision-language model.

    Raises:
        ConfigError: neither grid is a whole multiple of the other.
    """
    vlm, tower = towers["vlm"], towers[name]
    keys = [f"{TOWER_KEYS[which].rpartition('.')[0]}.INPUT_SIZE" for which in ("vlm", name)]
    if bool(vlm.input_size) != bool(tower.input_size):
        raise ConfigError(f"{keys[0]} and {keys[1]} must both be set or both be 0.")
    if vlm.input_size:
        ratio = Fraction(tower.input_size // tower.patch_size, vlm.input_size // vlm.patch_size)
    else:
        ratio = Fraction(vlm.patch_size, tower.patch_size)
    if 1 not in (ratio.numerator, ratio.denominator):
        raise ConfigError(
            f"the towers' grids do not match: {keys[0]} {vlm.input_size} with patch {vlm.patch_size} and {keys[1]} "
            f"{tower.input_size} with patch {tower.patch_size} give {ratio} cells per VLM cell; one grid must be a "
            "whole multiple of the other."
        )
    return ratio


# ---------------------------------------------------------------------- what can be shown


def all_quantities(head: Head) -> dict[str, Quantity]:
    """Return what can be shown of a head: its scores, what it names itself, and what it asked its towers for."""

    def probabilities(seen: Pass) -> Tensor:
        rows = (head.rule.probabilities(scores, seen.text.class_of) for scores in head.rule.scores(seen.logits))
        return torch.stack(list(rows))

    found = {"scores": Quantity("class_maps", "probability of every class", probabilities), **head.quantities()}
    for tower, request in head.requests().items():
        if request.dense != "none":
            meaning = f"dense map of the tower {tower!r}"
            found[f"{tower}_features"] = Quantity("features", meaning, lambda seen, t=tower: seen.features[t].dense)
        for index in request.blocks:
            meaning = f"output of block {index} of the tower {tower!r}"
            found[f"{tower}_block_{index}"] = Quantity(
                "features", meaning, lambda seen, t=tower, i=index: seen.features[t].blocks[i]
            )
    return found


# ---------------------------------------------------------------------- diagnostics


def is_logged(head: Head) -> bool:
    """Whether diagnostics of this pass go into the training log."""
    return head.training and has_event_storage() and get_event_storage().iter % LOG_PERIOD == 0


def log_scalars(group: str, **values: Tensor) -> None:
    """Put diagnostics into the training log, as ``group/name``."""
    scalars = {f"{group}/{name}": float(value.detach()) for name, value in values.items()}
    get_event_storage().put_scalars(**scalars, smoothing_hint=False)


def log_histogram(name: str, values: Tensor) -> None:
    """Put a histogram of values in 0..1 into the training log."""
    get_event_storage().put_histogram(name, values.detach().float().cpu(), bins=20)
