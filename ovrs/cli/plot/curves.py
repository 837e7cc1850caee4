"""Draw losses, learning rate and scores of one or several trainings over their iterations.

A RUN is the output folder of a training (or of ovrs pretrain). Scores that were measured under different protocols are
refused, unless --differing: then the differences stand below the curves.

Examples:
    ovrs plot curves output/demo/gsnet
    ovrs plot curves output/demo/gsnet output/demo/dr_seg --labels GSNet DR-Seg --out curves.pdf
    ovrs plot curves output/demo/gsnet --of total_loss "*/mIoU"
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folders of trainings")
    parser.add_argument("--labels", nargs="+", default=[], metavar="TEXT", help="what to call the runs, in order")
    parser.add_argument(
        "--of", nargs="+", default=[], metavar="NAME", help="quantities, * for any letters (default: losses, lr, mIoU)"
    )
    parser.add_argument("--differing", action="store_true", help="draw scores of different protocols, and say how")
    parser.add_argument("--out", default="output/plots/curves.png", help="the file to write (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Draw."""
    from ovrs.errors import ConfigError
    from ovrs.plots import Run, draw_curves
    from ovrs.plots.curves import PATTERNS
    from ovrs.visualization.figures import check_format, save_figure

    path = check_format(args.out)
    if args.labels and len(args.labels) != len(args.runs):
        raise ConfigError(f"--labels has {len(args.labels)} texts for {len(args.runs)} runs; give one each.")
    labels = args.labels or [""] * len(args.runs)
    runs = [Run.read(folder, label) for folder, label in zip(args.runs, labels, strict=True)]
    print(save_figure(draw_curves(runs, args.of or PATTERNS, args.differing), path))
