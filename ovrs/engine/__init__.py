"""Training, evaluation, checkpoints, and measuring a model's size and speed."""

from ovrs.engine.checkpoint import CheckpointStore, load_weights
from ovrs.engine.setup import build_model, launch_processes, prepare_run
from ovrs.engine.testing import check_test_sets, evaluate
from ovrs.engine.trainer import Trainer
from ovrs.errors import USER_ERRORS, TrainingDiverged, readable_errors

__all__ = [
    "USER_ERRORS",
    "CheckpointStore",
    "Trainer",
    "TrainingDiverged",
    "build_model",
    "check_test_sets",
    "evaluate",
    "launch_processes",
    "load_weights",
    "prepare_run",
    "readable_errors",
]
