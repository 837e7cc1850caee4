"""Print a paper's table with this project's own figures beside the printed ones.

What was evaluated before is read from the store of results (output/results, or $OVRS_RESULTS); parameters and
arithmetic are counted on the spot. With --run, what the checkpoints and data sets at hand allow is evaluated first; an
interrupted run goes on where it stopped. Every empty cell has its reason and its remedy.

Examples:
    ovrs reproduce                                   # which papers and tables there are
    ovrs reproduce dr_seg table1
    ovrs reproduce hg_rsovsseg table6 --run
    ovrs reproduce gsnet table2 --row gsnet --format markdown > table2.md
"""

from __future__ import annotations

import argparse

from ovrs.cli import log_to_stderr


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("paper", nargs="?", metavar="PAPER", help="a shipped paper, or a file of tables of your own")
    parser.add_argument("table", nargs="?", metavar="TABLE", help="a table of it")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="keys and values to change in every row")
    parser.add_argument("--row", default="", metavar="ROW", help="one row alone")
    parser.add_argument("--run", dest="evaluate", action="store_true", help="evaluate first what can be evaluated here")
    parser.add_argument(
        "--format", choices=("table", "markdown", "csv", "json"), default="table", help="default: table"
    )


def run(args: argparse.Namespace) -> None:
    """Print one table, or what there is."""
    import logging

    from ovrs.config import load_paper
    from ovrs.reproduction import render, reproduce, run_table

    if args.table is None:
        _print_tables(load_paper(args.paper) if args.paper else None)
        return
    log_to_stderr(logging.INFO if args.evaluate else logging.ERROR)
    where = (args.paper, args.table, args.row)
    if args.evaluate:
        run_table(*where, overrides=args.overrides)
    print(render(reproduce(*where, overrides=args.overrides), args.format), end="")


def _print_tables(paper: object) -> None:
    from ovrs.config import list_papers, load_paper

    for each in [paper] if paper else map(load_paper, list_papers()):
        print(f"{each.key}: {each.title}")
        for table in each.tables.values():
            print(f"  {table.key}: {table.title}")
