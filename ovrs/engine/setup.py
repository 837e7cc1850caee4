"""From a configuration to a running process and a model."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, launch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.multiprocessing import ProcessExitedException

import ovrs
from ovrs.config import ConfigError, import_modules, load_config
from ovrs.data.work import usable_cores
from ovrs.engine.output import CONFIG_NAME, LOG_NAME, LOGGERS, begin_output, check_output, keep_log
from ovrs.errors import choose, is_expected, readable_errors
from ovrs.inference import apply_precision, resolve_device

logger = logging.getLogger(__name__)


def argument_parser(epilog: str = "") -> argparse.ArgumentParser:
    """Return Detectron2's arguments of a training program, and those about its output folder."""
    parser = default_argument_parser(epilog)
    # Detectron2's is one port for all jobs of a person.
    parser.set_defaults(dist_url="auto")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that OUTPUT_DIR holds")
    parser.add_argument(
        "--resume-changed", action="store_true", help="as --resume, with other settings than before: no longer exact"
    )
    return parser


def launch_processes(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run ``main(args)`` in as many processes as the arguments ask for (``--num-gpus``, ``--num-machines``).

    Without a GPU the processes run on the CPU and talk over gloo. An error that the user can mend ends the
    program with its message alone (see :func:`ovrs.errors.readable_errors`).
    """
    with readable_errors():
        _check_processes(args)
    several = args.num_gpus * args.num_machines > 1
    # Ctrl-C is for the processes that work; this one waits for them.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if several else None
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
    finally:
        if several:
            signal.signal(signal.SIGINT, before)


def _check_processes(args: argparse.Namespace) -> None:
    if args.num_gpus < 1:
        raise ConfigError(f"--num-gpus must be at least 1, got {args.num_gpus}; a CPU counts as one.")
    if torch.cuda.is_available() and args.num_gpus > torch.cuda.device_count():
        raise ConfigError(f"--num-gpus is {args.num_gpus}, but there are {torch.cuda.device_count()} GPUs here.")
    if args.num_machines > 1 and args.dist_url == "auto":
        raise ConfigError("--num-machines above 1 needs --dist-url, an address that all of them reach: tcp://HOST:PORT")


def _run_process(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    if comm.get_world_size() > 1:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with readable_errors():
            main(args)
    finally:
        # gloo's threads may abort a process that exits with its groups alive.
        comm._get_global_gloo_group.cache_clear()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def prepare_run(args: argparse.Namespace) -> CfgNode:
    """Read the configuration and refuse an output folder that it does not fit; nothing is written yet.

    Args:
        args: what :func:`argument_parser` gives, or Detectron2's ``default_argument_parser``.

    Returns:
        The frozen configuration, device chosen.

    Raises:
        ConfigError: see :func:`ovrs.config.load_config` and :func:`ovrs.engine.output.check_output`; or no config file
            was given.
    """
    if not args.config_file:
        raise ConfigError("no configuration given: use --config-file, for example configs/demo/gsnet.yaml.")
    cfg = load_config(args.config_file, args.opts)
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    cfg.freeze()
    changed = getattr(args, "resume_changed", False)
    check_output(
        cfg,
        evaluate=getattr(args, "eval_only", False),
        resume=getattr(args, "resume", False) or changed,
        resume_changed=changed,
        overwrite=getattr(args, "overwrite", False),
    )

    rank = comm.get_rank()
    for name in LOGGERS:
        setup_logger(distributed_rank=rank, name=name)
    keep_log()
    # How lists of files are stored in memory, and that a machine without a GPU has CUDA's compiler.
    logging.getLogger("detectron2.data.common").setLevel(logging.WARNING)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_unexpected)
    share_cores(cfg.MODEL.DEVICE)
    return cfg


def share_cores(device: str) -> None:
    """Give this process its part of the cores, where several of this machine compute on the CPU."""
    if device == "cpu" and comm.get_local_size() > 1:
        torch.set_num_threads(max(usable_cores() // comm.get_local_size(), 1))


def begin_run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Write ``OUTPUT_DIR/config.yaml`` and open the log there; everything that can be checked has been."""
    evaluate = getattr(args, "eval_only", False)
    begin_output(cfg, evaluate=evaluate, overwrite=getattr(args, "overwrite", False))
    comm.synchronize()  # the folder is as it will be
    task = "Evaluating" if evaluate else "Training"
    sets = ", ".join(cfg.DATASETS.TEST if evaluate else cfg.DATASETS.TRAIN)
    logger.info(
        "OVRS %s. %s %s on %s; %d process(es) on %s. Output: %s (all settings: %s, log and machine: %s).",
        ovrs.__version__,
        task,
        cfg.MODEL.SEM_SEG_HEAD.NAME,
        sets,
        comm.get_world_size(),
        cfg.MODEL.DEVICE,
        cfg.OUTPUT_DIR,
        CONFIG_NAME,
        LOG_NAME,
    )


def _is_unexpected(record: logging.LogRecord) -> bool:
    """Let Detectron2's training loop log the tracebacks of bugs only."""
    return not (record.exc_info and is_expected(record.exc_info[1]))


def build_model(cfg: CfgNode, *, load_towers: bool = True) -> nn.Module:
    """Build ``MODEL.META_ARCHITECTURE`` on ``MODEL.DEVICE``; ``MODEL.WEIGHTS`` is not loaded here.

    Args:
        cfg: the configuration.
        load_towers: whether the towers are filled from ``MODEL.VLM.WEIGHTS`` and ``MODEL.PRIOR.WEIGHTS``, as
            far as ``MODEL.WEIGHTS`` does not replace them. False fetches nothing.

    Raises:
        ConfigError: a name that no registry knows, or a value out of range.
        WeightsError: see :func:`ovrs.zoo.resolve`.
    """
    import_modules(cfg)  # this process may have been handed a configuration that another one loaded
    if not load_towers:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS or "none"
    apply_precision(cfg)
    device = resolve_device(cfg.MODEL.DEVICE)
    name = choose("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, [key for key, _ in META_ARCH_REGISTRY])
    model = META_ARCH_REGISTRY.get(name)(cfg).to(device)
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info("Model with %s parameters, %s of them trained, on %s.", f"{total:,}", f"{trained:,}", device)
    return model
