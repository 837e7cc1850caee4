#!/usr/bin/env python3
"""The main job on a small scale: make labelled scenes, train, evaluate, draw.

A small model learns eight classes of generated overhead scenes from their names, through the ordinary
train_net.py. It is then scored twice: with the words it was trained with, and with every class renamed
to words it has never seen. An interrupted run goes on where it stopped.

Examples:
    python tools/demo.py
    python tools/demo.py --config-file configs/demo/dr_seg.yaml --output output/demo
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from ovrs import Predictor
from ovrs.demo import DemoFailed, DemoScenes, report_of, train_on_scenes
from ovrs.engine import readable_errors
from ovrs.gallery import draw_predictions

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 8


def main() -> None:
    """Run every step and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default=str(ROOT / "configs/demo/gsnet.yaml"), help="default: %(default)s")
    parser.add_argument("--output", default="output/demo", help="folder of everything (default: %(default)s)")
    parser.add_argument("--train-scenes", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--val-scenes", type=int, default=32, help="default: %(default)s")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="configuration overrides: KEY VALUE ...")
    args = parser.parse_args()
    setup_logger(name="ovrs")
    start = time.perf_counter()

    with readable_errors():
        scenes = DemoScenes.written(Path(args.output, "scenes"), args.train_scenes, args.val_scenes)
        try:
            run = train_on_scenes(args.config_file, scenes, Path(args.output, Path(args.config_file).stem), args.opts)
        except DemoFailed as error:
            sys.exit(f"{Path(sys.argv[0]).name}: {error}")
        predictor = Predictor.from_files(run / "config.yaml", run / "model_final.pth")
        pictures = [
            picture
            for dataset in (scenes.seen, scenes.renamed)
            for picture in draw_predictions(predictor.cfg, predictor.model, dataset, run / "pictures", PICTURES)
        ]
        logging.getLogger("ovrs").info("Finished in %.1f minutes.", (time.perf_counter() - start) / 60)
        print_scores(run, scenes)
        print(f"\nPictures: {pictures[0].parent.parent}/*/*.png\nReport:   {run / 'report.md'}")


def print_scores(run: Path, scenes: DemoScenes) -> None:
    """Print both mIoUs beside the chance level, and every class with its two names."""
    names = scenes.names()
    first, second = (MetadataCatalog.get(name).stuff_classes for name in names)
    scores = [report_of(run)[name] for name in names]
    rows = [
        [word, scores[0]["classes"][word]["IoU"], other, scores[1]["classes"][other]["IoU"]]
        for word, other in zip(first, second, strict=True)
    ]
    rows.append(["mIoU", scores[0]["figures"]["mIoU"], "mIoU", scores[1]["figures"]["mIoU"]])
    chance = scenes.chance()
    rows.append(["(chance)", chance, "(chance)", chance])
    header = ["trained word", "IoU %", "renamed, never seen", "IoU %"]
    print("\n" + tabulate(rows, headers=header, floatfmt=".1f", tablefmt="github"))


if __name__ == "__main__":
    main()
