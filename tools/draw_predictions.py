#!/usr/bin/env python3
r"""Draw image, truth and prediction side by side for a data set.

Examples:
    python tools/draw_predictions.py --config-file output/config.yaml --weights output/model_final.pth \
        --dataset hg_potsdam_5_val --limit 20 --output output/pictures

    # your own data set
    python tools/draw_predictions.py --config-file output/config.yaml --weights output/model_final.pth \
        --dataset town.yaml:val --output output/pictures
"""

from __future__ import annotations

import argparse

from ovrs import Predictor
from ovrs.engine import readable_errors
from ovrs.gallery import draw_predictions


def main() -> None:
    """Parse arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the configuration that the model was trained with")
    parser.add_argument("--weights", required=True, help="checkpoint")
    parser.add_argument("--dataset", required=True, help="registered name, or CARD.yaml:split")
    parser.add_argument("--output", default="output/pictures", help="folder of the pictures (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=0, help="number of images; 0 for all (default)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="configuration overrides: KEY VALUE ...")
    args = parser.parse_args()
    with readable_errors():
        predictor = Predictor.from_files(args.config_file, args.weights, args.opts)
        draw_predictions(predictor.cfg, predictor.model, args.dataset, args.output, args.limit)


if __name__ == "__main__":
    main()
