"""Say what an unknown weights file is: tower or whole model, whose layout, which configuration it fits.

Only names, shapes and plain values are looked at; nothing in the file is run. Exit code 1: the file fits no
configuration exactly.

Examples:
    ovrs weights check downloads/model_final.pth
    ovrs weights check downloads/model_final.pth --config papers/dr_seg:table6/k_20
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovrs.zoo.identify import Identity

_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the weights file")
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="NAME", help="compare with these (default: with all that is shipped)"
    )


def run(args: argparse.Namespace) -> int:
    """Print what is found; 1 where nothing fits."""
    from tabulate import tabulate

    from ovrs.zoo import identify

    identity = identify(args.file)
    facts = {
        "file": args.file,
        "is": _kind(identity),
        "published as": identity.known_as,
        "layout": identity.layout,
        "trained": identity.progress,
        "tensors": f"{len(identity.tensors):,} with {identity.numbers:,} numbers",
        "also holds": ", ".join(identity.holds),
        "left to": ", ".join(f"{weights} (what is frozen of {tower})" for tower, weights in identity.frozen.items()),
        "not read": f"{len(identity.left_out)} tensors, such as {identity.left_out[0]}" if identity.left_out else "",
        "SHA-256": identity.sha256,
        **{f"metadata: {key}": _first_line(value) for key, value in identity.metadata.items()},
    }
    print(tabulate([(key, value) for key, value in facts.items() if value], tablefmt="plain", disable_numparse=True))
    if identity.kind == "tower":
        return _print_archs(identity)
    return _print_fits(identity, args.config) if identity.kind == "segmenter" else 1


def _kind(identity: Identity) -> str:
    return {"segmenter": "a whole model", "tower": "a tower", "unknown": "nothing that this project knows"}[
        identity.kind
    ]


def _print_archs(identity: Identity) -> int:
    from ovrs.errors import shortened
    from ovrs.zoo import catalogue

    if not identity.archs:
        print("\nNo architecture of open_clip's or of the catalogue's priors has these shapes.")
        return 1
    print(f"\nFits MODEL.VLM.ARCH or MODEL.PRIOR.ARCH: {shortened(identity.archs)}")
    families = [name for name, entry in catalogue().items() if entry.arch in identity.archs]
    if families and not identity.known_as:
        print(f"Of that shape are {', '.join(families)}; shapes alone do not tell them apart.")
    return 0


def _print_fits(identity: Identity, names: list[str]) -> int:
    from ovrs.errors import shortened
    from ovrs.measure.fitting import fitting_configs

    fits = fitting_configs(identity, names)
    if not fits:
        print("\nNo shipped configuration has its towers; compare it with one of your own: --config FILE.")
    exact = [name for name, fit in fits if fit.exact]
    if exact:
        print(f"\nFits exactly: {shortened(exact, _SHOWN)}")
    elif fits:
        print("\nFits no configuration exactly. The nearest:")
    for name, fit in [item for item in fits if not item[1].exact][: 0 if exact and not names else _SHOWN]:
        print(f"  {name}: {fit}")
    return 0 if exact else 1


def _first_line(text: str) -> str:
    first, _, more = text.partition("\n")
    return f"{first} …" if more else first
