#!/usr/bin/env python3
"""List every registered data set: name, original name, classes, and whether it lies under the data root.

Examples:
    python tools/list_datasets.py
    DETECTRON2_DATASETS=/data python tools/list_datasets.py --present
"""

from __future__ import annotations

import argparse

from tabulate import tabulate

from ovrs.data import data_root, list_datasets
from ovrs.engine import readable_errors


def main() -> None:
    """Parse arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="", help="data root; default: $DETECTRON2_DATASETS, then ./datasets")
    parser.add_argument("--present", action="store_true", help="only sets whose folders exist")
    args = parser.parse_args()
    with readable_errors():
        rows = [
            [entry.name, ", ".join(entry.aliases), entry.num_classes, "yes" if entry.present else "no", entry.title]
            for entry in list_datasets(args.root)
            if entry.present or not args.present
        ]
        print(tabulate(rows, headers=["name", "original name", "classes", "present", "title"]))
        print(f"\n{len(rows)} data sets; root: {data_root(args.root)}")


if __name__ == "__main__":
    main()
