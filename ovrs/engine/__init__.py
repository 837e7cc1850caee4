"""Training, evaluation and checkpoints."""

from ovrs.engine.checkpoint import CheckpointStore, load_weights
from ovrs.engine.setup import build_model, launch_processes, prepare_run
from ovrs.engine.testing import evaluate
from ovrs.engine.trainer import Trainer

__all__ = ["CheckpointStore", "Trainer", "build_model", "evaluate", "launch_processes", "load_weights", "prepare_run"]
