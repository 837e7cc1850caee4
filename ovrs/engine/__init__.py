"""Training, evaluation, checkpoints, and measuring a model's size and speed."""

from ovrs.engine.checkpoint import CheckpointStore, load_configured, load_weights, needs_checkpoint
from ovrs.engine.ensemble import Ensemble
from ovrs.engine.main import train_or_evaluate
from ovrs.engine.setup import argument_parser, begin_run, build_model, launch_processes, prepare_run
from ovrs.engine.testing import check_test_sets, evaluate
from ovrs.engine.trainer import Trainer
from ovrs.errors import TrainingDiverged, readable_errors

__all__ = [
    "CheckpointStore",
    "Ensemble",
    "Trainer",
    "TrainingDiverged",
    "argument_parser",
    "begin_run",
    "build_model",
    "check_test_sets",
    "evaluate",
    "launch_processes",
    "load_configured",
    "load_weights",
    "needs_checkpoint",
    "prepare_run",
    "readable_errors",
    "train_or_evaluate",
]
