"""Training and evaluation as one program, whoever starts it."""

from __future__ import annotations

import argparse

from ovrs.config import ConfigError
from ovrs.engine.checkpoint import load_configured, load_weights, needs_checkpoint
from ovrs.engine.setup import begin_run, build_model, prepare_run
from ovrs.engine.testing import check_test_sets, evaluate
from ovrs.engine.trainer import Trainer


def train_or_evaluate(args: argparse.Namespace) -> None:
    """Do what the arguments ask for, in this process.

    Args:
        args: what :func:`ovrs.engine.argument_parser` gives.
    """
    cfg = prepare_run(args)
    if args.eval_only and not cfg.MODEL.WEIGHTS and needs_checkpoint(cfg):
        raise ConfigError("an evaluation needs MODEL.WEIGHTS, the checkpoint to evaluate.")
    if args.eval_only and not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST is empty; name at least one data set, or the path of a data card.")
    check_test_sets(cfg)
    if args.eval_only:
        model = build_model(cfg)
        weights = load_configured(model, cfg)
        begin_run(cfg, args)
        evaluate(cfg, model, cfg.OUTPUT_DIR, weights)
        return
    trainer = Trainer(cfg, resume=args.resume or args.resume_changed)
    begin_run(cfg, args)
    trainer.train()
    if cfg.DATASETS.TEST:
        evaluate(cfg, trainer.model, cfg.OUTPUT_DIR, load_weights(trainer.model, trainer.store.last()))
