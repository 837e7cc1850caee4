#!/usr/bin/env python3
r"""Print a model's parameters by part and its multiply-accumulates by stage; no weights are needed.

Examples:
    # GSNet as published: 243,988,242 parameters, 29,006,865 of them trained
    python tools/analyze_model.py --config-file configs/Base-OVRS.yaml

    # forty classes, one pass over the whole image
    python tools/analyze_model.py --config-file configs/Base-OVRS.yaml --classes 40 \
        TEST.SLIDING_WINDOW.ENABLED False INPUT.MIN_SIZE_TEST 384

    # HG-RSOVSSeg's row in Table 1 of its paper, 0.433 G and 1.036 T: 433,429,697 parameters (and CLIP's logit_scale,
    # which the original drops) and 1,035.60 giga-MACs "with text, as fvcore counts" belong to inputs of 224
    python tools/analyze_model.py --config-file configs/hg_rsovsseg/georsclip_vitl14_336_globe230k.yaml \
        --classes 10 --size 512 512 MODEL.VLM.INPUT_SIZE 224

    # the same at its real input size, 512: 434,494,657 parameters and 1,518.6 giga-MACs
    python tools/analyze_model.py --config-file configs/hg_rsovsseg/georsclip_vitl14_336_globe230k.yaml \
        --classes 10 --size 512 512

    # images at their own size, and the numbers as JSON
    python tools/analyze_model.py --config-file configs/demo/gsnet.yaml --size 256 256 --json output/analysis.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ovrs.config import load_config
from ovrs.engine import readable_errors
from ovrs.files import replacing
from ovrs.measure.analysis import analyze


def main() -> None:
    """Parse the command line, analyse, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="configuration (YAML)")
    parser.add_argument("--classes", type=int, default=5, metavar="T", help="number of classes (default: 5)")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(640, 640), metavar=("H", "W"), help="size of the image (default: 640 640)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file too")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes of configuration keys; last"
    )
    args = parser.parse_args()

    with readable_errors():
        analysis = analyze(load_config(args.config_file, args.opts), args.classes, tuple(args.size))
        print(analysis.table())
        if args.json:
            with replacing(args.json) as temporary:
                temporary.write_text(json.dumps(analysis.as_dict(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
