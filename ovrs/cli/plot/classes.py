"""Draw the IoU of every class as bars, several results side by side.

Classes that training did not know are hatched. A RESULT is a record of the store (output/results, or $OVRS_RESULTS) by
its data set, for all records of it, or as DATASET/KEY with the beginning of its key; or the folder of a run, or a file.
Without a RESULT, the records of the store are listed. Results of different protocols are refused, unless --differing:
then the differences stand below the bars.

Examples:
    ovrs plot classes
    ovrs plot classes hg_potsdam_5_val --out potsdam.pdf
    ovrs plot classes hg_potsdam_5_val/4b1c9a30 hg_potsdam_5_val/99fd46a0 --labels GSNet DR-Seg
    ovrs plot classes output/gsnet output/dr_seg --dataset hg_potsdam_5_val --figure F1
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("results", nargs="*", metavar="RESULT", help="DATASET, DATASET/KEY, a run's folder or a file")
    parser.add_argument("--labels", nargs="+", default=[], metavar="TEXT", help="what to call the results, in order")
    parser.add_argument("--dataset", default="", help="of runs that were tested on several sets, the one that is meant")
    parser.add_argument("--figure", default="IoU", help="IoU, ACC, Precision or F1 (default: %(default)s)")
    parser.add_argument("--title", default="", help="default: the name of the data set")
    parser.add_argument("--differing", action="store_true", help="draw results of different protocols, and say how")
    parser.add_argument("--out", default="output/plots/classes.png", help="the file to write (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Draw, or list what could be drawn."""
    import dataclasses

    from ovrs.errors import ConfigError
    from ovrs.evaluation import ResultStore
    from ovrs.plots import draw_classes, find_results
    from ovrs.visualization.figures import check_format, save_figure

    store = ResultStore()
    if not args.results:
        _print_list(store)
        return
    path = check_format(args.out)
    found = find_results(args.results, store, args.dataset)
    if args.labels:
        if len(args.labels) != len(found):
            raise ConfigError(f"--labels has {len(args.labels)} texts for {len(found)} results; give one each.")
        found = [dataclasses.replace(each, label=label) for each, label in zip(found, args.labels, strict=True)]
    drawn = draw_classes(found, figure=args.figure, differing=args.differing, title=args.title)
    print(save_figure(drawn, path))


def _print_list(store: object) -> None:
    from tabulate import tabulate

    from ovrs.plots.sources import key_of

    rows = [
        [
            f"{result.dataset}/{key_of(result)}",
            result.protocol["config"].get("MODEL", {}).get("SEM_SEG_HEAD", {}).get("NAME", ""),
            result.protocol["weights"]["file"] or result.protocol["weights"]["sha256"][:12],
            result.figures["mIoU"],
            result.protocol["date"][:10],
        ]
        for result in store.results()
    ]
    print(f"Results in {store.folder}:")
    print(tabulate(rows, headers=["result", "head", "weights", "mIoU", "date"], floatfmt=".2f"))
