#!/usr/bin/env python3
r"""Prepare a public data set: from the authors' download to the layout and the labels that its card reads.

Folders and archives (zip, tar, tar.gz) are read as they are. A second run does only what is missing.

Examples:
    python datasets/prepare.py --list

    # three ways to give the original: a folder with everything, archives, or several folders
    python datasets/prepare.py hg_potsdam_5 --source ~/downloads/potsdam
    python datasets/prepare.py hg_loveda_6 --source Train.zip Val.zip --out /data
    python datasets/prepare.py rskt_isaid_15 --source dota/train dota/val isaid/train isaid/val --workers 8

    # what would be written, and whether a prepared set is as it should be
    python datasets/prepare.py hg_potsdam_5 --source ~/downloads/potsdam --dry-run
    python datasets/prepare.py --check hg_potsdam_5
"""

from __future__ import annotations

import argparse
import logging
import sys

from tabulate import tabulate

from ovrs.data import built_in_cards, data_root
from ovrs.engine import readable_errors
from ovrs.preparation import RECIPES, CheckReport, check, find_card, prepare


def main() -> None:
    """Parse arguments and do one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", metavar="NAME", help="data set to prepare: name of a card, or an alias")
    what.add_argument("--check", metavar="NAME", help="look at a prepared data set")
    what.add_argument("--list", action="store_true", help="list the data sets that can be prepared")
    parser.add_argument("--source", nargs="+", metavar="PATH", help="downloaded folders and archives")
    parser.add_argument("--out", default="", help="data root; default: $DETECTRON2_DATASETS, then ./datasets")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one per core)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, write nothing")
    parser.add_argument("--strict", action="store_true", help="unexpected numbers of images are an error")
    args = parser.parse_args()
    if bool(args.name) != bool(args.source):
        parser.error("NAME and --source belong together: what to prepare, and the download that it is made from.")
    if args.workers < 0:
        parser.error(f"--workers must be at least 1 (or 0 for one per core), got {args.workers}.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    with readable_errors():
        if args.list:
            _print_list()
        elif args.check:
            card = find_card(args.check, built_in_cards())
            report = check(card, data_root(args.out), workers=args.workers)
            _print_report(report)
            sys.exit(bool(report.problems))
        else:
            card = find_card(args.name, built_in_cards())
            options = {"workers": args.workers, "dry_run": args.dry_run, "strict": args.strict}
            print(prepare(card, args.source, data_root(args.out), **options))


def _print_list() -> None:
    cards = [card for card in built_in_cards() if card.splits and card.source.get("family") in RECIPES]
    rows = [
        [card.name, ", ".join(card.splits), RECIPES[card.source["family"]].download, card.homepage] for card in cards
    ]
    print(tabulate(rows, headers=["name", "splits", "fetch", "from"], maxcolwidths=[None, None, 50, None]))


def _print_report(report: CheckReport) -> None:
    for split in report.splits:
        print(f"\n{split.name}: {split.pairs} pairs")
        shares = split.shares()
        rows = [
            [name, pixels, f"{shares[name]:.3%}" if name in shares else ""] for name, pixels in split.pixels.items()
        ]
        print(tabulate(rows, headers=["class", "pixels", "share"]))
        for problem in split.problems:
            print(f"WRONG: {problem}")
        for doubt in split.doubts:
            print(f"unusual: {doubt}")
    print(f"\nWhat a wrong conversion looks like: {report.wrong_conversion}")


if __name__ == "__main__":
    main()
