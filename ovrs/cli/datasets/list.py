"""List every registered data set: name, original name, classes, and whether it lies under the data root.

Examples:
    ovrs datasets list
    ovrs datasets list --root /data --present
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("--root", default="", help="data root; default: $DETECTRON2_DATASETS, then ./datasets")
    parser.add_argument("--present", action="store_true", help="only sets whose folders exist")


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    from tabulate import tabulate

    from ovrs.data import data_root, list_datasets

    rows = [
        [entry.name, ", ".join(entry.aliases), entry.num_classes, "yes" if entry.present else "no", entry.title]
        for entry in list_datasets(args.root)
        if entry.present or not args.present
    ]
    print(tabulate(rows, headers=["name", "original name", "classes", "present", "title"]))
    print(f"\n{len(rows)} data sets; root: {data_root(args.root)}")
