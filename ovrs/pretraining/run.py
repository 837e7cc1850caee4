"""From the words of a command line to a pre-trained prior."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import yaml
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

import ovrs
from ovrs.config import ConfigError, options_node
from ovrs.config.loader import plain
from ovrs.engine import CheckpointStore
from ovrs.engine.output import CONFIG_NAME, LOGGERS, open_log, remove_run
from ovrs.engine.setup import share_cores
from ovrs.files import replacing
from ovrs.inference import resolve_device
from ovrs.plain_yaml import read_plain_yaml
from ovrs.pretraining.images import find_images
from ovrs.pretraining.recipe import FREE, Recipe, load_recipe
from ovrs.pretraining.trainer import HOLDS, PRIOR_NAME, Pretrainer

logger = logging.getLogger(__name__)


def pretrain(args: argparse.Namespace) -> None:
    """Do what ``ovrs pretrain`` was asked for, in this process.

    Args:
        args: ``images`` (see :func:`ovrs.pretraining.images.find_images`), ``recipe`` (YAML file or ""), ``overrides``
            (KEY VALUE …), ``output`` (folder), ``resume`` and ``overwrite``.

    Raises:
        ConfigError: a recipe that cannot be used, or a folder that holds another run.
        DataError: no images, or one that cannot be read.
        WeightsError: see :class:`Pretrainer`.
        TrainingDiverged: likewise.
    """
    recipe, folder = load_recipe(args.recipe, args.overrides), Path(args.output)
    files = find_images(args.images)
    _check_folder(folder, recipe, args.resume, args.overwrite)
    for name in LOGGERS:
        setup_logger(distributed_rank=comm.get_rank(), name=name)
    share_cores(resolve_device(recipe.device))
    trainer = Pretrainer(recipe, files, folder, args.resume)
    if comm.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        if args.overwrite:
            remove_run(folder)
            for name in (PRIOR_NAME, f"{PRIOR_NAME}.sha256"):
                (folder / name).unlink(missing_ok=True)
        with replacing(folder / CONFIG_NAME) as temporary:
            temporary.write_text(yaml.safe_dump(_keys(recipe), sort_keys=False), encoding="utf-8")
    comm.synchronize()
    open_log(folder)
    logger.info(
        "OVRS %s. Pre-training %s on %d images: %d epochs of %d steps. Output: %s.",
        ovrs.__version__,
        recipe.arch,
        len(files),
        recipe.epochs,
        trainer.steps_per_epoch,
        folder,
    )
    trainer.train()


def _check_folder(folder: Path, recipe: Recipe, resume: bool, overwrite: bool) -> None:
    """Refuse a folder whose run would be lost, or would go on under another recipe."""
    if resume and overwrite:
        raise ConfigError("--resume goes on with the run in --output and --overwrite replaces it; give one of them.")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output is {folder}, which is a file; name a folder.")
    if overwrite or CheckpointStore(folder, HOLDS).last() is None:
        return
    if not resume:
        raise ConfigError(
            f"--output {folder} holds a run already. Go on with it by --resume, replace it by --overwrite, or name "
            "another folder."
        )
    before = read_plain_yaml(folder / CONFIG_NAME, "recipe of the run", ConfigError) or {}
    changed = [
        f"{key}: {before.get(key, 'not there')} → {value}"
        for key, value in _keys(recipe).items()
        if key not in FREE and before.get(key) != value
    ]
    if changed:
        raise ConfigError(f"--resume: the run in {folder} had another recipe: {'; '.join(changed)}. Set it back.")


def _keys(recipe: Recipe) -> dict[str, object]:
    return plain(options_node(recipe))
