"""Print a configuration with everything merged, as one plain YAML file.

Without a name, what is shipped is listed: recipes, papers with their tables and rows.

Examples:
    ovrs config
    ovrs config demo/gsnet
    ovrs config papers/dr_seg:table6/k_20 SOLVER.BASE_LR 1e-4 > my_model.yaml
    ovrs config papers/dr_seg:table6/k_20 --changed

    # what the options of a head mean
    ovrs config --help-keys MODEL.GSNET
"""

from __future__ import annotations

import argparse

from ovrs.cli import add_configuration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_configuration(parser, required=False)
    parser.add_argument("--changed", action="store_true", help="only the keys that differ from their defaults")
    what = "explain the options of heads, all or of one group: MODEL.GSNET"
    parser.add_argument("--help-keys", nargs="?", const="MODEL", metavar="GROUP", help=what)


def run(args: argparse.Namespace) -> None:
    """Print one configuration, the list of all, or what options mean."""
    import yaml

    from ovrs.config import get_cfg, load_config
    from ovrs.config.loader import changed_keys, plain

    cfg = get_cfg() if args.name is None else load_config(args.name, args.overrides)  # with the groups of IMPORTS
    if args.help_keys:
        _explain(args.help_keys)
        return
    if args.name is None:
        _print_list()
        return
    content = changed_keys(cfg, get_cfg()) if args.changed else plain(cfg)
    print(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True), end="")


def _print_list() -> None:
    from ovrs.config import list_papers, load_paper
    from ovrs.config.names import configs_folder, shipped_configs

    print(f"Shipped in {configs_folder()}:")
    for name in shipped_configs():
        if not name.startswith("papers/"):
            print(f"  {name}")
    for key in list_papers():
        paper = load_paper(key)
        print(f"\npapers/{key}: {paper.title}")
        for table in paper.tables.values():
            rows = [row.key for row in table.rows.values() if row.config is not None]
            if rows:
                print(f"  {table.key}: {table.title}\n      {', '.join(rows)}")


def _explain(group: str) -> None:
    import typing

    from tabulate import tabulate

    from ovrs.config import OPTION_GROUPS
    from ovrs.config.options import walk_options
    from ovrs.errors import ConfigError, nearest

    rows = []
    for name, options in OPTION_GROUPS.items():
        for key, item, hint, default in walk_options(f"MODEL.{name}", options):
            choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
            allowed = f" One of {', '.join(map(str, choices))}." if choices else ""
            default = list(default) if isinstance(default, tuple) else default
            rows.append([key, default, f"{item.metadata['meaning']}.{allowed}"])
    shown = [row for row in rows if f"{row[0]}.".startswith(f"{group}.")]
    if not shown:
        groups = {row[0].rpartition(".")[0] for row in rows}
        raise ConfigError(f"--help-keys: no head has options {group}; the nearest group is {nearest(group, groups)}.")
    print(tabulate(shown, headers=["key", "default", "meaning"], maxcolwidths=[None, 24, 70], disable_numparse=True))
