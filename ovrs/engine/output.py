"""The output folder of a run: what it holds already, and what may be written into it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info

from ovrs.config import get_cfg
from ovrs.engine.checkpoint import POINTER, CheckpointStore
from ovrs.errors import ConfigError, shortened
from ovrs.evaluation.report import JSON_NAME, MARKDOWN_NAME
from ovrs.files import replacing
from ovrs.plain_yaml import read_plain_yaml
from ovrs.zoo.state_dict import sha256_of_file

CONFIG_NAME, LOG_NAME, METRICS_NAME = "config.yaml", "log.txt", "metrics.json"
LOGGERS = ("fvcore", "detectron2", "ovrs")
# What a run may change on the way and still be the same run, iteration by iteration.
_FREE = ("OUTPUT_DIR", "VERSION", "VIS_PERIOD", "CUDNN_BENCHMARK", "MODEL.DEVICE", "MODEL.WEIGHTS")
_FREE += ("MODEL.FEATURE_CACHE",)
_FREE += ("DATALOADER.NUM_WORKERS", "DATALOADER.PREFETCH_FACTOR", "DATASETS.ROOT", "DATASETS.VAL")
_FREE_IN_TRAINING = (
    *_FREE,
    "TEST",
    "DATASETS.TEST",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINT_FULL",
    "SOLVER.CHECKPOINT_KEEP",
    "SOLVER.CHECKPOINT_BEST",
)
_FREE_IN_EVALUATION = (*_FREE, "SOLVER", "SEED", "DATASETS.TRAIN", "DATASETS.TRAIN_FRACTION")
_NOTHING = object()


def check_output(
    cfg: CfgNode,
    *,
    evaluate: bool = False,
    resume: bool = False,
    resume_changed: bool = False,
    overwrite: bool = False,
) -> None:
    """Refuse a folder whose content the run would destroy, or a continuation that would not be one. Writes nothing.

    Args:
        cfg: reads OUTPUT_DIR, and all of it where the folder holds a run.
        evaluate: whether the run only evaluates.
        resume: whether it goes on from the folder's newest checkpoint.
        resume_changed: whether it may go on under another configuration, though not exactly.
        overwrite: whether it may replace what the folder holds.

    Raises:
        ConfigError: the folder holds another run, or the same with other settings; the message lists them.
    """
    folder = Path(cfg.OUTPUT_DIR)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"OUTPUT_DIR is {folder}, which is a file; name a folder.")
    if overwrite and resume:
        raise ConfigError("--resume goes on with the run in OUTPUT_DIR and --overwrite replaces it; give one of them.")
    if overwrite:
        return
    if evaluate:
        _check_report(cfg, folder)
    elif resume:
        if CheckpointStore(folder).last() and not resume_changed:
            _check_continuation(cfg, folder)
    elif held := [*sorted(path.name for path in folder.glob("model_*.pth")), *_present(folder, JSON_NAME)]:
        raise ConfigError(
            f"OUTPUT_DIR {folder} holds a run already ({shortened(held, 3)}). Go on with it by --resume, replace it by "
            "--overwrite, or name another folder."
        )


def begin_output(cfg: CfgNode, *, evaluate: bool = False, overwrite: bool = False) -> None:
    """Write the configuration and open the log; call it once everything that can be checked has been.

    Args:
        cfg: the configuration of the run.
        evaluate: whether the run only evaluates: the configuration of a trained model in the folder stays.
        overwrite: whether a run that the folder holds is removed first.
    """
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    if comm.is_main_process():
        if overwrite and not evaluate:
            remove_run(folder)
        if not (evaluate and any(folder.glob("model_*.pth"))):
            with replacing(folder / CONFIG_NAME) as temporary:
                temporary.write_text(cfg.dump(), encoding="utf-8")
    open_log(folder)


def keep_log() -> None:
    """Keep what is logged from now on, until :func:`begin_output` opens the file."""
    for name in LOGGERS:
        logging.getLogger(name).addHandler(MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1))


def differences(old: Mapping[str, Any], cfg: CfgNode, free: tuple[str, ...]) -> list[str]:
    """Return ``KEY: old → new`` of every key that differs and is not below one of ``free``.

    Args:
        old: a configuration as read from YAML; keys that it lacks had their default.
        cfg: the new one.
        free: full names of keys and groups that may differ.
    """
    before = {**dict(_leaves(_plain(get_cfg()))), **dict(_leaves(old))}
    after = dict(_leaves(_plain(cfg)))
    return [
        f"{key}: {before.get(key, 'not there')} → {after.get(key, 'not there')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, _NOTHING) != after.get(key, _NOTHING)
        and not f"{key}.".startswith(tuple(f"{group}." for group in free))
    ]


def _check_report(cfg: CfgNode, folder: Path) -> None:
    if not (folder / JSON_NAME).is_file():
        return
    remedy = "Name another OUTPUT_DIR, or replace it by --overwrite."
    if changed := differences(_config_of(folder), cfg, _FREE_IN_EVALUATION):
        raise ConfigError(
            f"OUTPUT_DIR {folder} holds a report that was made with other settings ({shortened(changed)}). {remedy}"
        )
    entries = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))["datasets"].values()
    weights = Path(cfg.MODEL.WEIGHTS)
    if weights.is_file() and {entry["protocol"]["weights"]["sha256"] for entry in entries} != {sha256_of_file(weights)}:
        raise ConfigError(f"OUTPUT_DIR {folder} holds a report on other weights than {weights}. {remedy}")


def _check_continuation(cfg: CfgNode, folder: Path) -> None:
    # Under a constant rate, a run that ends later is the same run, further.
    free = (*_FREE_IN_TRAINING, *(["SOLVER.MAX_ITER"] if cfg.SOLVER.LR_SCHEDULER_NAME == "constant" else []))
    if changed := differences(_config_of(folder), cfg, free):
        raise ConfigError(
            f"--resume: the run in {folder} had other settings, so going on is not exact: {'; '.join(changed)}. Set "
            "them back, or go on all the same by --resume-changed."
        )


def _config_of(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    content = read_plain_yaml(path, "configuration of the run", ConfigError) if path.is_file() else None
    return content if isinstance(content, dict) else {}


def _plain(cfg: CfgNode) -> dict[str, Any]:
    return yaml.safe_load(cfg.dump())


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            # A tuple is written as a list.
            yield f"{prefix}{key}", value


def _present(folder: Path, *names: str) -> list[str]:
    return [name for name in names if (folder / name).is_file()]


def remove_run(folder: Path) -> None:
    """Remove what a run leaves, the pointer to its checkpoints first; other files of the folder stay."""
    for name in (POINTER, CONFIG_NAME, LOG_NAME, METRICS_NAME, JSON_NAME, MARKDOWN_NAME):
        (folder / name).unlink(missing_ok=True)
    for pattern in ("model_*.pth", f"{LOG_NAME}.rank*", "events.out.tfevents.*"):
        for path in folder.glob(pattern):
            path.unlink()
    for evaluation in folder.glob("evaluation_*"):
        for name in _present(evaluation, JSON_NAME, MARKDOWN_NAME):
            (evaluation / name).unlink()


def open_log(folder: Path) -> None:
    """Send everything to the log file from now on, and what was kept so far; describe the machine there."""
    rank = comm.get_rank()
    file = logging.FileHandler(folder / (LOG_NAME if rank == 0 else f"{LOG_NAME}.rank{rank}"), encoding="utf-8")
    file.setFormatter(logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"))
    kept: list[logging.LogRecord] = []
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for handler in logger.handlers[:]:
            if isinstance(handler, MemoryHandler):
                kept += handler.buffer
                logger.removeHandler(handler)
        logger.addHandler(file)
    # The compiled part of Detectron2 is left out on purpose; nothing here uses it.
    machine = "\n".join(line for line in collect_env_info().splitlines() if "detectron2._C" not in line)
    kept.append(logging.makeLogRecord({"name": __name__, "levelname": "INFO", "msg": f"Machine:\n{machine}"}))
    for record in sorted(kept, key=lambda record: record.created):
        file.handle(record)
