#!/usr/bin/env python3
"""Convert checkpoints between this project's names and those of the original projects.

Reading needs no conversion: MODEL.WEIGHTS takes files of either kind. This tool is for keeping one copy
(safetensors: no pickle) or for giving weights back to the original code.

Examples:
    python tools/convert_checkpoint.py gsnet_official.pth gsnet.safetensors
    python tools/convert_checkpoint.py output/model_final.pth for_gsnet.pth --to GSNet
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from ovrs.backbones.state_dict import read_state_dict
from ovrs.engine import readable_errors
from ovrs.files import replacing
from ovrs.zoo import LAYOUTS, from_any_layout


def main() -> None:
    """Parse arguments and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="checkpoint of this or of an original project")
    parser.add_argument("target", type=Path, help="file to write: .safetensors, or .pth with the key 'model'")
    parser.add_argument("--to", choices=sorted(LAYOUTS), help="write this project's layout instead of ours")
    args = parser.parse_args()
    with readable_errors():
        _convert(args)


def _convert(args: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    main()
