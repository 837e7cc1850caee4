"""From a configuration to a running process and a model."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import launch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.multiprocessing import ProcessExitedException

from ovrs.config import ConfigError, load_config
from ovrs.errors import USER_ERRORS, readable_errors
from ovrs.files import replacing
from ovrs.inference import apply_precision, resolve_device

logger = logging.getLogger(__name__)


def launch_processes(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run ``main(args)`` in as many processes as the arguments ask for (``--num-gpus``, ``--num-machines``).

    Without a GPU the processes run on the CPU and talk over gloo. An error that the user can mend ends the
    program with its message alone (see :func:`ovrs.errors.readable_errors`).
    """
    try:
        launch(
            _run_process,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )
    except ProcessExitedException as error:
        if error.signal_name is not None:
            raise
        sys.exit(error.exit_code)  # the process has said why


def _run_process(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    try:
        with readable_errors():
            main(args)
    finally:
        # gloo's threads may abort a process that exits with its groups alive.
        comm._get_global_gloo_group.cache_clear()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def prepare_run(args: argparse.Namespace) -> CfgNode:
    """Read the configuration, start the log and make the output folder.

    Args:
        args: what Detectron2's ``default_argument_parser`` gives.

    Returns:
        The frozen configuration, device chosen. It is written to ``OUTPUT_DIR/config.yaml`` too.

    Raises:
        ConfigError: see :func:`ovrs.config.load_config`; or no config file was given.
    """
    if not args.config_file:
        raise ConfigError("no configuration given: use --config-file, for example configs/demo/gsnet.yaml.")
    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    cfg.freeze()

    rank = comm.get_rank()
    for name in ("fvcore", "detectron2", "ovrs"):
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name)
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_unexpected)
    logger.info("Process %d of %d.\n%s", rank, comm.get_world_size(), collect_env_info())
    logger.info("Arguments: %s", args)
    if comm.is_main_process():
        with replacing(Path(cfg.OUTPUT_DIR, "config.yaml")) as temporary:
            temporary.write_text(cfg.dump(), encoding="utf-8")
        logger.info("Full configuration: %s", Path(cfg.OUTPUT_DIR, "config.yaml"))

    if cfg.MODEL.DEVICE == "cpu" and comm.get_local_size() > 1:
        torch.set_num_threads(max((os.cpu_count() or 1) // comm.get_local_size(), 1))
    return cfg


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Let Detectron2's training loop log the tracebacks of bugs only."""
    return not (record.exc_info and isinstance(record.exc_info[1], USER_ERRORS))


def build_model(cfg: CfgNode, *, load_towers: bool = True) -> nn.Module:
    """Build ``MODEL.META_ARCHITECTURE`` on ``MODEL.DEVICE``; ``MODEL.WEIGHTS`` is not loaded here.

    Args:
        cfg: the configuration.
        load_towers: whether the towers are filled from ``MODEL.VLM.WEIGHTS`` and ``MODEL.PRIOR.WEIGHTS``, as
            far as ``MODEL.WEIGHTS`` does not replace them. False fetches nothing.

    Raises:
        ConfigError: a name that no registry knows, or a value out of range.
        WeightsError: see :mod:`ovrs.backbones.weights`.
    """
    if not load_towers:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS or "none"
    apply_precision(cfg)
    device = resolve_device(cfg.MODEL.DEVICE)
    try:
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).to(device)
    except (KeyError, ValueError) as error:  # registries raise the one, classes that check their arguments the other
        raise ConfigError(str(error.args[0])) from error
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info("Model with %s parameters, %s of them trained, on %s.", f"{total:,}", f"{trained:,}", device)
    return model
