"""Evaluate a checkpoint on the data sets of DATASETS.TEST; the report goes into OUTPUT_DIR.

Examples:
    ovrs eval demo/gsnet --weights output/demo/gsnet/model_final.pth
    ovrs eval gsnet/vitb16_landdiscover50k --weights gsnet.pth DATASETS.TEST "['gsnet_potsdam_5_all']"
"""

from __future__ import annotations

import argparse

from ovrs.cli import add_configuration
from ovrs.cli.train import add_processes, launch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_configuration(parser)
    parser.add_argument("--weights", help="the checkpoint (default: MODEL.WEIGHTS of the configuration)")
    add_processes(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate."""
    weights = ["MODEL.WEIGHTS", args.weights] if args.weights else []
    launch(args, [*args.overrides, *weights], eval_only=True)
