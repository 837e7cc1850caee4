"""Prepare a public data set: from the authors' download to the layout and the labels that its card reads.

Folders and archives (zip, tar, tar.gz) are read as they are. A second run does only what is missing.

Examples:
    ovrs datasets prepare --list

    # three ways to give the original: a folder with everything, archives, or several folders
    ovrs datasets prepare hg_potsdam_5 --source ~/downloads/potsdam
    ovrs datasets prepare hg_loveda_6 --source Train.zip Val.zip --out /data
    ovrs datasets prepare rskt_isaid_15 --source dota/train dota/val isaid/train isaid/val --workers 8

    # what would be written, and whether a prepared set is as it should be
    ovrs datasets prepare hg_potsdam_5 --source ~/downloads/potsdam --dry-run
    ovrs datasets prepare --check hg_potsdam_5
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ovrs.cli import log_to_stderr

if TYPE_CHECKING:
    from ovrs.preparation import CheckReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="data set to prepare: name of a card, or an alias")
    parser.add_argument("--check", metavar="NAME", help="look at a prepared data set")
    parser.add_argument("--list", action="store_true", help="list the data sets that can be prepared")
    parser.add_argument("--source", nargs="+", metavar="PATH", help="downloaded folders and archives")
    parser.add_argument("--out", default="", help="data root; default: $DETECTRON2_DATASETS, then ./datasets")
    parser.add_argument("--workers", type=int, default=0, help="processes (default: one per core)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, write nothing")
    parser.add_argument("--strict", action="store_true", help="unexpected numbers of images are an error")


def run(args: argparse.Namespace) -> int:
    """Do one of the three."""
    from ovrs.data import built_in_cards, data_root
    from ovrs.errors import UserError
    from ovrs.preparation import check, find_card, prepare

    if [bool(args.name), bool(args.check), args.list].count(True) != 1:
        raise UserError("give one of: NAME with --source, --check NAME, --list.")
    if bool(args.name) != bool(args.source):
        raise UserError("NAME and --source belong together: what to prepare, and the download that it is made from.")
    if args.workers < 0:
        raise UserError(f"--workers must be at least 1 (or 0 for one per core), got {args.workers}.")
    log_to_stderr()

    if args.list:
        _print_list()
        return 0
    card, root = find_card(args.check or args.name, built_in_cards()), data_root(args.out)
    if args.check:
        report = check(card, root, workers=args.workers)
        _print_report(report)
        return int(bool(report.problems))
    print(prepare(card, args.source, root, workers=args.workers, dry_run=args.dry_run, strict=args.strict))
    return 0


def _print_list() -> None:
    from tabulate import tabulate

    from ovrs.data import built_in_cards
    from ovrs.preparation import RECIPES

    cards = [card for card in built_in_cards() if card.splits and card.source.get("family") in RECIPES]
    rows = [
        [card.name, ", ".join(card.splits), RECIPES[card.source["family"]].download, card.homepage] for card in cards
    ]
    print(tabulate(rows, headers=["name", "splits", "fetch", "from"], maxcolwidths=[None, None, 50, None]))


def _print_report(report: CheckReport) -> None:
    from tabulate import tabulate

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
