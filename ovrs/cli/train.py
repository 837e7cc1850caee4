"""Train a model, evaluate it, and write everything into OUTPUT_DIR.

Examples:
    # the demo model on the demo scenes (see: ovrs demo), on a CPU or a GPU
    ovrs train demo/gsnet

    # a row of a paper's table; its results go to output/dr_seg/table6/k_20
    ovrs train papers/dr_seg:table6/k_20 SOLVER.IMS_PER_BATCH 4

    # go on after an interruption; four GPUs (or four CPU processes, where there is no GPU)
    ovrs train demo/gsnet --resume
    ovrs train gsnet/vitb16_landdiscover50k --num-gpus 4
"""

from __future__ import annotations

import argparse

from ovrs.cli import add_configuration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_configuration(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument(
        "--resume-changed", action="store_true", help="as --resume, with other settings than before: no longer exact"
    )
    add_processes(parser)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add what decides in how many processes a run is done, and what it may replace."""
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run left in OUTPUT_DIR")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine (default: %(default)s)")
    parser.add_argument("--num-machines", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--machine-rank", type=int, default=0, help="which of the machines this is, from 0")
    parser.add_argument("--dist-url", default="auto", help="where the processes meet (default: a free port here)")


def run(args: argparse.Namespace) -> None:
    """Train."""
    launch(args, args.overrides)


def launch(args: argparse.Namespace, overrides: list[str], *, eval_only: bool = False) -> None:
    """Start the processes of a run, with the arguments that Detectron2's scripts have."""
    from ovrs.engine import launch_processes, train_or_evaluate

    run = argparse.Namespace(config_file=args.name, opts=overrides, eval_only=eval_only)
    for name in ("resume", "resume_changed", "overwrite", "num_gpus", "num_machines", "machine_rank", "dist_url"):
        setattr(run, name, getattr(args, name, False))
    launch_processes(train_or_evaluate, run)
