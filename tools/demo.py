#!/usr/bin/env python3
"""The main job on a small scale: make labelled scenes, train, evaluate, draw.

A small GSNet learns eight classes of generated overhead scenes from their names, through the ordinary
train_net.py. It is then scored twice: with the words it was trained with, and with every class renamed
to words it has never seen. An interrupted run goes on where it stopped.

Examples:
    python tools/demo.py
    python tools/demo.py --config-file configs/demo/gsnet.yaml --output output/demo
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from ovrs import Predictor
from ovrs.data import read_labels, resolve_datasets
from ovrs.data.synthetic import write_scenes
from ovrs.evaluation.chance import chance_miou
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

    scenes = write_scenes(Path(args.output, "scenes"), train=args.train_scenes, val=args.val_scenes)
    seen, renamed = f"{scenes / 'scenes.yaml'}:val", f"{scenes / 'scenes_renamed.yaml'}:val"
    run = Path(args.output, Path(args.config_file).stem)
    data = [
        "DATASETS.TRAIN",
        json.dumps([f"{scenes / 'scenes.yaml'}:train"]),
        "DATASETS.TEST",
        json.dumps([seen, renamed]),
    ]
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", args.config_file, "--resume"]
    training = subprocess.run([*command, *data, "OUTPUT_DIR", str(run), *args.opts])
    if training.returncode:  # train_net.py has said why
        sys.exit(training.returncode)

    predictor = Predictor.from_files(run / "config.yaml", run / "model_final.pth")
    pictures = [
        picture
        for dataset in (seen, renamed)
        for picture in draw_predictions(predictor.cfg, predictor.model, dataset, run / "pictures", PICTURES)
    ]
    logging.getLogger("ovrs").info("Finished in %.1f minutes.", (time.perf_counter() - start) / 60)
    print_scores(run, seen, renamed)
    print(f"\nPictures: {pictures[0].parent.parent}/*/*.png\nReport:   {run / 'report.md'}")


def print_scores(run: Path, seen: str, renamed: str) -> None:
    """Print both mIoUs beside the chance level, and every class with its two names."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    names = resolve_datasets([seen, renamed])
    first, second = (MetadataCatalog.get(name).stuff_classes for name in names)
    scores = [report["datasets"][name] for name in names]
    card = MetadataCatalog.get(names[0]).card
    truth = (read_labels(record["sem_seg_file_name"], card) for record in DatasetCatalog.get(names[0]))
    rows = [
        [word, scores[0]["classes"][word]["IoU"], other, scores[1]["classes"][other]["IoU"]]
        for word, other in zip(first, second, strict=True)
    ]
    rows.append(["mIoU", scores[0]["figures"]["mIoU"], "mIoU", scores[1]["figures"]["mIoU"]])
    chance = chance_miou(truth, len(first))
    rows.append(["(chance)", chance, "(chance)", chance])
    header = ["trained word", "IoU %", "renamed, never seen", "IoU %"]
    print("\n" + tabulate(rows, headers=header, floatfmt=".1f", tablefmt="github"))


if __name__ == "__main__":
    main()
