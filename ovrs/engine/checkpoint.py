"""Checkpoints: written whole or not at all, read without running anything in them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from ovrs.engine.slim import read_weights
from ovrs.errors import ConfigError, WeightsError
from ovrs.files import replacing
from ovrs.heads import head_class
from ovrs.zoo import find, from_any_layout, resolve
from ovrs.zoo.state_dict import load_strictly, read_checkpoint, sha256_of_file

logger = logging.getLogger(__name__)

POINTER = "last_checkpoint"
UNTRAINED = "untrained"  # in the place of a checkpoint's sum; the towers' own files are recorded beside it
OTHER_CONFIG = "The checkpoint belongs to another configuration: use the config file that it was trained with."
# What a training checkpoint holds.
STATE = ("model", "optimizer", "scaler", "iteration", "seed")


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Fill the whole model, towers included, from a checkpoint.

    Files of this project, slim ones too (see :mod:`ovrs.engine.slim`), and of the original projects (see
    :mod:`ovrs.zoo`) are understood.

    Args:
        model: the segmenter, not wrapped.
        path: the file, or a name of the catalogue, which is fetched if need be.

    Returns:
        The file's SHA-256.

    Raises:
        WeightsError: missing or damaged file, or one of another architecture.
    """
    if find(str(path)) is not None:
        path = resolve(path)
    state = from_any_layout(read_weights(path))
    load_strictly(model, state, str(path), remedy=OTHER_CONFIG, refuse_surplus=True)
    logger.info("Weights loaded from %s.", path)
    return sha256_of_file(path)


def needs_checkpoint(cfg: CfgNode) -> bool:
    """Whether the configured model says nothing of use before a checkpoint fills it."""
    return cfg.MODEL.META_ARCHITECTURE == "OpenVocabSegmenter" and head_class(cfg).needs_training


def load_configured(model: nn.Module, cfg: CfgNode) -> str:
    """Fill the model from ``MODEL.WEIGHTS``, which a model that needs no training may leave empty.

    Returns:
        The file's SHA-256, what an ensemble has in its place, or ``UNTRAINED``.

    Raises:
        ConfigError: there is no checkpoint, and the model needs one.
        WeightsError: see :func:`load_weights`.
    """
    if cfg.MODEL.WEIGHTS:
        return load_weights(model, cfg.MODEL.WEIGHTS)
    if needs_checkpoint(cfg):
        raise ConfigError(
            f"MODEL.WEIGHTS is empty, and {cfg.MODEL.SEM_SEG_HEAD.NAME} predicts nothing of use before it is "
            "trained: name a checkpoint, or a model that needs no training."
        )
    return getattr(model, "weights_sha256", UNTRAINED)


class CheckpointStore:
    """The checkpoints of one output folder.

    A checkpoint is a PyTorch file with everything a run needs to go on. It is written beside its final name and
    renamed, so that a crash or a full disk leaves the previous ones as they were.

    Args:
        folder: where they are.
        holds: what a checkpoint must have for a run to go on from it.
    """

    def __init__(self, folder: str | Path, holds: Sequence[str] = STATE) -> None:
        self.folder = Path(folder)
        self._holds = holds

    def save(self, name: str, content: dict[str, Any], *, last: bool = True) -> Path:
        """Write ``content`` as ``NAME.pth`` and, if it is the ``last``, point ``last_checkpoint`` to it.

        Raises:
            OSError: it could not be written; earlier checkpoints are untouched. The message names the file.
        """
        path = self.folder / f"{name}.pth"
        try:
            with replacing(path) as temporary, open(temporary, "wb") as stream:
                torch.save(content, stream)
                stream.flush()
                os.fsync(stream.fileno())
            if last:
                with replacing(self.folder / POINTER) as temporary:
                    temporary.write_text(path.name, encoding="utf-8")
        except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
            raise OSError(
                f"checkpoint {path} could not be written ({error}); earlier checkpoints are intact."
            ) from error
        logger.info("Checkpoint %s written.", path)
        return path

    def last(self) -> Path | None:
        """Return the newest checkpoint, or ``None`` before the first.

        Raises:
            WeightsError: ``last_checkpoint`` names a file that does not exist.
        """
        pointer = self.folder / POINTER
        if not pointer.is_file():
            return None
        name = pointer.read_text(encoding="utf-8").strip()
        path = self.folder / name
        if not path.is_file():
            raise WeightsError(
                f"{pointer} names the checkpoint {name!r}, which does not exist: write the name of another checkpoint "
                "of that folder into it, or delete it to start anew."
            )
        return path

    def prune(self, keep: int) -> None:
        """Remove all but the newest ``keep`` periodic checkpoints; 0 keeps all."""
        if keep:
            for path in self._periodic()[keep:]:
                path.unlink()

    def load_last(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest checkpoint and its path, or ``None`` before the first.

        A file that was cut off, by a full disk or a crash of the machine, is passed over for the one before it.

        Raises:
            WeightsError: none of them can be read; the message is the newest one's.
        """
        newest = self.last()
        if newest is None:
            return None
        first_error = None
        for path in [newest, *(path for path in self._periodic() if path != newest)]:
            try:
                content = self.load(path)
            except WeightsError as error:
                first_error = first_error or error
                continue
            if first_error:
                logger.warning("%s Going on from the one before it, %s.", first_error, path)
            return path, content
        raise first_error

    def _periodic(self) -> list[Path]:
        """Return the checkpoints that were written on the way, newest first."""
        return sorted(self.folder.glob("model_[0-9]*.pth"), reverse=True)

    def load(self, path: Path) -> dict[str, Any]:
        """Read a checkpoint that ``save`` wrote.

        Raises:
            WeightsError: damaged, or not a training checkpoint; the message says how to go on.
        """
        remedy = f"To go on from an earlier checkpoint, write its name into {self.folder / POINTER}."
        try:
            content = read_checkpoint(path)
        except WeightsError as error:
            raise WeightsError(f"{error} {remedy}") from error
        missing = [key for key in self._holds if key not in content]
        if missing:
            raise WeightsError(f"{path} is no training checkpoint: it lacks {', '.join(missing)}. {remedy}")
        return content
