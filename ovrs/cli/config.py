"""Print a configuration with everything merged, as one plain YAML file.

Without a name, what is shipped is listed: recipes, papers with their tables and rows.

Examples:
    ovrs config
    ovrs config demo/gsnet
    ovrs config papers/dr_seg:table6/k_20 SOLVER.BASE_LR 1e-4 > my_model.yaml
    ovrs config papers/dr_seg:table6/k_20 --changed
"""

from __future__ import annotations

import argparse

from ovrs.cli import add_configuration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_configuration(parser, required=False)
    parser.add_argument("--changed", action="store_true", help="only the keys that differ from their defaults")


def run(args: argparse.Namespace) -> None:
    """Print one configuration, or the list of all."""
    import yaml

    from ovrs.config import get_cfg, load_config
    from ovrs.config.loader import changed_keys, plain

    if args.name is None:
        _print_list()
        return
    cfg = load_config(args.name, args.overrides)
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
