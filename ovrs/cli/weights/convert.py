"""Convert checkpoints between this project's names and those of the original projects.

Reading needs no conversion: MODEL.WEIGHTS takes files of either kind. This command is for keeping one copy
(safetensors: no pickle) or for giving weights back to the original code.

Examples:
    ovrs weights convert gsnet_official.pth gsnet.safetensors
    ovrs weights convert output/model_final.pth for_gsnet.pth --to GSNet
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("source", type=Path, help="checkpoint of this or of an original project")
    parser.add_argument("target", type=Path, help="file to write: .safetensors, or .pth with the key 'model'")
    parser.add_argument("--to", metavar="PROJECT", help="write this project's layout instead of ours")


def run(args: argparse.Namespace) -> None:
    """Convert."""
    import torch
    from safetensors.torch import save_file

    from ovrs.backbones.state_dict import read_state_dict
    from ovrs.errors import choose
    from ovrs.files import replacing
    from ovrs.zoo import LAYOUTS, from_any_layout

    if args.to:
        choose("--to", args.to, sorted(LAYOUTS))
    state = from_any_layout(read_state_dict(args.source))
    if args.to:
        state = LAYOUTS[args.to].to_official(state)
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    with replacing(args.target) as temporary:
        if args.target.suffix == ".safetensors":
            save_file(state, temporary)
        else:
            torch.save({"model": state}, temporary)
    print(f"{args.target}: {len(state)} tensors, {sum(t.numel() for t in state.values()):,} numbers")
