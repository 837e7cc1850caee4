"""Write a checkpoint of an original project in this project's names.

Reading needs no conversion: MODEL.WEIGHTS takes files of either kind. This is for keeping one copy, without pickle
and without the optimizer's state.

Examples:
    ovrs weights import gsnet_official.pth gsnet.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint of this or of an original project")
    parser.add_argument(
        "target", type=Path, metavar="TARGET", help="file to write: .safetensors, or .pth with the key 'model'"
    )


def run(args: argparse.Namespace) -> None:
    """Convert."""
    from ovrs.engine.slim import read_weights
    from ovrs.zoo.convert import to_layout, write_weights

    state = to_layout(read_weights(args.source))
    write_weights(state, args.target)
    print(f"{args.target}: {len(state)} tensors, {sum(tensor.numel() for tensor in state.values()):,} numbers")
