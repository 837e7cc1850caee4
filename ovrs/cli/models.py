"""List, describe and fetch published weights: towers and whole models.

Files lie in one folder: $OVRS_WEIGHTS, else ~/.cache/torch/hub/ovrs. Everything works offline from files that
somebody put there. A download that breaks off goes on with the same command.

Examples:
    ovrs models
    ovrs models --kind segmenter
    ovrs models show hg-openearthmap
    ovrs models fetch hg-openearthmap
    ovrs models fetch georsclip/ViT-L-14-336 --from https://mirror.example.org/weights
    ovrs models fetch gsnet-vitb16 --from ~/downloads/gsnet.pth
"""

from __future__ import annotations

import argparse

from ovrs.cli import log_to_stderr


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("action", nargs="?", choices=("list", "show", "fetch"), default="list", help="default: list")
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of the catalogue, for show and fetch")
    parser.add_argument("--kind", choices=("tower", "segmenter", "part"), help="list only these")
    parser.add_argument(
        "--from", dest="source", default="", metavar="SOURCE", help="mirror (an address), local folder or file"
    )


def run(args: argparse.Namespace) -> int | None:
    """Do one of the three; fetching goes on after a failure and ends with 1."""
    from ovrs.errors import ConfigError

    if args.action == "list":
        _list(args.kind)
        return None
    if not args.names:
        raise ConfigError(f"ovrs models {args.action} needs at least one NAME; 'ovrs models' lists all.")
    if args.action == "show":
        for name in args.names:
            _show(name)
        return None
    return _fetch(args.names, args.source)


def _list(kind: str | None) -> None:
    from tabulate import tabulate

    from ovrs.zoo import cache_folder, entry_of, is_present, list_models

    rows = []
    for name in list_models(kind):
        entry = entry_of(name)
        mean = entry.figures.get("mean")
        rows.append(
            [
                name,
                entry.title,
                _way(entry),
                "" if mean is None else f"{mean:.2f}",
                entry.licence,
                "yes" if is_present(entry) else "no",
            ]
        )
    headers = ["name", "what", "where", "printed mIoU", "licence", "present"]
    print(tabulate(rows, headers, disable_numparse=True, maxcolwidths=[None, 40, None, None, 24, None]))
    print(f"\nFiles lie in {cache_folder()} ($OVRS_WEIGHTS names another folder).")


def _way(entry: object) -> str:
    if entry.address:
        return "direct"
    return "gated" if entry.gated else "Google Drive" if entry.google_drive else "by hand"


def _show(name: str) -> None:
    from tabulate import tabulate

    from ovrs.zoo import cached_path, entry_of, is_present
    from ovrs.zoo.cache import known_sum

    entry = entry_of(name)
    path = cached_path(entry)
    facts = {
        "name": ", ".join((entry.name, *entry.aliases)),
        "what": f"{entry.kind}: {entry.title}",
        "note": entry.note,
        "architecture": entry.arch,
        "activation": " or ".join(filter(None, (entry.activation, entry.published_with))),
        "configuration": entry.config,
        "should reproduce": entry.row and "ovrs reproduce {} {} --row {}".format(*entry.row.split(".")),
        "printed": ", ".join(f"{column} {figure:.2f}" for column, figure in entry.figures.items()),
        "format": entry.format,
        "tensors": entry.keys,
        "size": f"{entry.size:,} bytes" if entry.size else "not known",
        "SHA-256": known_sum(entry) or "not known; noted at first use",
        "licence": entry.licence,
        "source": entry.source,
        "file": f"{path} ({'present' if is_present(entry) else 'absent'})",
        "to get it": ""
        if is_present(entry)
        else f"ovrs models fetch {name}"
        if entry.address
        else entry.way_to_get(path),
    }
    print(
        tabulate([(key, value) for key, value in facts.items() if value], tablefmt="plain", disable_numparse=True),
        end="\n\n",
    )


def _fetch(names: list[str], source: str) -> int:
    import sys

    from ovrs.errors import WeightsError
    from ovrs.zoo import fetch

    log_to_stderr()
    failed = 0
    for name in names:
        try:
            print(f"{name}: {fetch(name, source)}")
        except WeightsError as error:
            print(error, file=sys.stderr)
            failed += 1
    return int(failed > 0)
