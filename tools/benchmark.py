#!/usr/bin/env python3
r"""Measure speed, memory and label agreement of a model's precisions and ways to run on drawn scenes.

Beside time and memory it prints the share of what a large matrix product reaches on the same device in the same run,
and the launches of a pass.

Examples:
    # the demo model in both precisions, on whatever device there is
    python tools/benchmark.py --config-file configs/demo/gsnet.yaml

    # GSNet as published on large images, with trained weights
    python tools/benchmark.py --config-file configs/Base-OVRS.yaml --classes 40 --images 4 --size 1000 1000 \
        MODEL.WEIGHTS output/model_final.pth

    # one precision on the CPU, and the numbers as JSON
    python tools/benchmark.py --config-file configs/demo/gsnet.yaml --precision fp32 --json output/speed.json \
        MODEL.DEVICE cpu

    # bf16 as it was, with copies of the weights, compiled, and recorded in CUDA graphs
    python tools/benchmark.py --config-file configs/demo/gsnet.yaml --precision fp32 bf16:plain bf16 bf16:compiled \
        bf16:graphs

    # what scoring a map of 4000 x 4000 pixels and 20 classes costs beside predicting it
    python tools/benchmark.py --config-file configs/Base-OVRS.yaml --classes 20 --images 1 --size 4000 4000 \
        --precision fp32

    # the published models at full size in every way to run, and training steps: for a GPU
    python tools/benchmark.py --table

    # what one worker of the training loader delivers from 1024 x 1024 files
    python tools/benchmark.py --loader --config-file configs/Base-OVRS.yaml
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from ovrs.config import load_config
from ovrs.engine import readable_errors
from ovrs.files import replacing
from ovrs.measure.benchmark import MODES, measure, table
from ovrs.measure.loading import measure_loading
from ovrs.measure.loading import table as loading_table
from ovrs.measure.suite import suite


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", metavar="FILE", help="configuration (YAML)")
    parser.add_argument("--table", action="store_true", help="measure the published models at full size instead")
    parser.add_argument("--loader", action="store_true", help="measure the training loader instead")
    parser.add_argument("--classes", type=int, default=8, metavar="T", help="number of classes (default: 8)")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["fp32", "bf16"],
        metavar="P[:MODE]",
        help=f"fp32, bf16, fp16, alone or with {', '.join(filter(None, MODES))}; the first is the reference "
        "(default: fp32 bf16)",
    )
    parser.add_argument("--images", type=int, default=2, metavar="N", help="images of a pass (default: 2)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"), help="of the images (default: 256 256)"
    )
    parser.add_argument("--repeat", type=int, default=3, metavar="K", help="passes; the median counts (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file too")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="changes of configuration keys; last, and not right after --precision",
    )
    args = parser.parse_args()

    if not (args.config_file or args.table):
        parser.error("--config-file is needed")
    with readable_errors():
        if args.table:
            device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
            print(f"{device}, PyTorch {torch.__version__}, random weights, images drawn, text cached\n\n{suite()}")
            return
        cfg = load_config(args.config_file, args.opts)
        if args.loader:
            print(loading_table(measure_loading(cfg)))
            return
        measurements = measure(
            cfg,
            args.precision,
            classes=args.classes,
            images=args.images,
            size=tuple(args.size),
            repeats=args.repeat,
        )
        protocol = {
            "config": args.config_file,
            "weights": cfg.MODEL.WEIGHTS or "random",
            "classes": args.classes,
            "images": args.images,
            "size": list(args.size),
            "repeats": args.repeat,
            "device": cfg.MODEL.DEVICE,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        print(", ".join(f"{key}: {value}" for key, value in protocol.items()))
        print(table(measurements))
        if args.json:
            content = {**protocol, "measurements": [measurement.as_dict() for measurement in measurements]}
            with replacing(args.json) as temporary:
                temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
