#!/usr/bin/env python3
r"""Train or evaluate a segmenter.

Examples:
    # the demo model on the demo scenes, on a CPU or a GPU
    python train_net.py --config-file configs/demo/gsnet.yaml

    # go on after an interruption
    python train_net.py --config-file configs/demo/gsnet.yaml --resume

    # evaluate a checkpoint, with a key changed on the command line
    python train_net.py --config-file configs/gsnet/vitb16_landdiscover50k.yaml --eval-only \
        MODEL.WEIGHTS output/model_final.pth DATASETS.TEST "['gsnet_potsdam_5_val']"

    # four GPUs (or four CPU processes, where there is no GPU)
    python train_net.py --config-file configs/gsnet/vitb16_landdiscover50k.yaml --num-gpus 4
"""

from __future__ import annotations

import argparse

from detectron2.engine import default_argument_parser

from ovrs.config import ConfigError
from ovrs.engine import Trainer, build_model, check_test_sets, evaluate, launch_processes, load_weights, prepare_run


def main(args: argparse.Namespace) -> None:
    """Run in one process."""
    cfg = prepare_run(args)
    if args.eval_only:
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError("--eval-only needs MODEL.WEIGHTS, the checkpoint to evaluate.")
        model = build_model(cfg)
        evaluate(cfg, model, cfg.OUTPUT_DIR, load_weights(model, cfg.MODEL.WEIGHTS))
        return
    check_test_sets(cfg)
    trainer = Trainer(cfg, resume=args.resume)
    trainer.train()
    if cfg.DATASETS.TEST:
        evaluate(cfg, trainer.model, cfg.OUTPUT_DIR, load_weights(trainer.model, trainer.store.last()))


if __name__ == "__main__":
    parser = default_argument_parser(epilog=__doc__[__doc__.index("Examples:") :])
    launch_processes(main, parser.parse_args())
