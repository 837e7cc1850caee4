"""Write a checkpoint in the names of an original project, for its own code.

Examples:
    ovrs weights export output/model_final.pth for_gsnet.pth --to GSNet
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint of this or of an original project")
    parser.add_argument(
        "target", type=Path, metavar="TARGET", help="file to write: .pth with the key 'model', or .safetensors"
    )
    parser.add_argument(
        "--to", required=True, metavar="PROJECT", help="whose names: CAT-Seg, GSNet, HG-RSOVSSeg or RSKT-Seg"
    )


def run(args: argparse.Namespace) -> None:
    """Convert."""
    from ovrs.engine.slim import read_weights
    from ovrs.zoo.convert import to_layout, write_weights

    state = to_layout(read_weights(args.source), args.to)
    write_weights(state, args.target)
    print(f"{args.target}: {len(state)} tensors, {sum(tensor.numel() for tensor in state.values()):,} numbers")
